"""Write pipeline/evaluation/decodings.json, from which `medalign student decodings` lists the methods without torch.

usage: python scripts/describe_decodings.py
"""

import json

from medalign.pipeline.evaluation.decoding_choice import describe_decodings
from medalign.pipeline.evaluation.decoding_list import DESCRIPTIONS
from medalign.student.decoding import method_registry

methods = {name: method for name, method in describe_decodings().items() if name in method_registry._METHODS}
DESCRIPTIONS.write_text(json.dumps(methods, indent=2) + "\n", encoding="utf-8")
