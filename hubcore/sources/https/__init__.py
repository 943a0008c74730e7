"""Downloads over https: requests, parts that can be resumed, checks of addresses."""
