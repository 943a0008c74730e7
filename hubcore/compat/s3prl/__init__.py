"""s3prl's interface on hubcore's upstreams, so that recipes written for s3prl run unchanged. Imports no torch.

Either import from here what a recipe imports from s3prl, or call `install()` first and leave the recipe as it is:

```text
s3prl.nn                   S3PRLUpstream, Featurizer          hubcore.compat.s3prl
s3prl.hub                  names as functions, options()      hubcore.compat.s3prl.hub
s3prl.util.download        set_dir, get_dir, ...              hubcore.compat.s3prl.download
s3prl.upstream.interfaces  Featurizer, the older one          hubcore
```

`hubcore docs migrating_from_s3prl` says what comes out differently, and why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore.compat.s3prl import hub as hub
    from hubcore.compat.s3prl.download import set_dir as set_dir
    from hubcore.compat.s3prl.featurizer import Featurizer as Featurizer
    from hubcore.compat.s3prl.installation import install as install
    from hubcore.compat.s3prl.installation import uninstall as uninstall
    from hubcore.compat.s3prl.upstream import S3PRLUpstream as S3PRLUpstream

__getattr__, __dir__ = lazy_exports(__name__)
