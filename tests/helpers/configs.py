"""A configuration as the command line makes it."""

from a3c.config import Config
from a3c.flags import parse_args


def resolve(line: str = "", cores: int = 2, num_gpus: int = 0) -> Config:
    return parse_args(line.split()).resolve(cores, num_gpus)
