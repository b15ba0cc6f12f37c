"""``python -m picollm`` is ``picollm``."""

import sys

from picollm.cli.main import main

sys.exit(main())
