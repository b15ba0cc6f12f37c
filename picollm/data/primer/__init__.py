"""An offline generator of text: sentences from templates, facts from tables, everything a function of a seed.

It stands in for every data set of the project where nothing can be downloaded, and it is built to show what
supervised fine-tuning does: see ``facts`` for the three groups of facts.
"""

from __future__ import annotations

from picollm.data.primer.documents import digest, document, documents
from picollm.data.primer.facts import Fact, facts
from picollm.data.primer.rows import rows

__all__ = ["Fact", "digest", "document", "documents", "facts", "rows"]
