"""What the server of `process_groups` does before it forks, so that no process does it anew.

Hydra's first composition reads its plugins, its grammar and our schema, and Pillow's first image
looks for the formats that there are. What is loaded by now lives as long as each process does:
freezing it keeps the garbage collector of each from walking, and so copying, all of it.
"""

import gc

from PIL import Image

from trainer.config.compose import compose, from_json
from trainer.config.fingerprint import config_json

from_json(config_json(compose()))
Image.preinit()
gc.collect()
gc.freeze()
