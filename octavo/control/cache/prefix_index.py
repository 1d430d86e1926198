"""Which blocks hold which run of tokens, after which prefix: finds KV that has been computed before.

Owns the keys and the entries by block. Knows no sequences, no reference counts and no bytes.
"""

from __future__ import annotations

import hashlib
import secrets
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

_KEY_BYTES = 16
# How many blocks that begin with the wanted token are compared, the newest first.
MAX_COMPARED_BLOCKS = 64
MAX_REMEMBERED_SALTS = 4096


@dataclass(frozen=True, slots=True)
class CachedRun:
    """What an indexed block holds.

    Attributes:
        parent_key: key of the prefix before the block; a root key for a first block.
        salt: of the root key, for a first block; None for all others.
        key: key of the prefix up to and with the block; None while the block is not full.
        token_ids: the block's tokens, from its first slot.
    """

    parent_key: bytes
    key: bytes | None
    token_ids: tuple[int, ...]
    salt: str | None = None


class PrefixIndex:
    """Blocks by the tokens before and in them.

    A key is a hash of all tokens up to a block's end, chained from block to block, and of what else
    changes the KV: the salt, which is the root of the chain. Hashes are BLAKE2b under a secret of this
    process, so that nobody can make two prefixes collide on purpose.
    """

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._secret = secrets.token_bytes(32)
        self._generation = 0
        self._roots: dict[str, bytes] = {}  # by salt; made again where it has been dropped
        self._runs: dict[int, CachedRun] = {}
        self._full: dict[bytes, int] = {}
        self._continuations: dict[tuple[bytes, int], dict[int, None]] = {}  # (parent key, first token)

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, block_id: int) -> bool:
        return block_id in self._runs

    @property
    def runs(self) -> dict[int, CachedRun]:
        """By block id. Not to be changed."""
        return self._runs

    # -- keys

    def root_key(self, salt: str) -> bytes:
        """The key of the empty prefix under a salt. Changes when everything is forgotten."""
        key = self._roots.get(salt)
        if key is None:
            generation = self._generation.to_bytes(8, "little")
            key = self._hash(generation, salt.encode("utf-8", "surrogatepass"))
            if len(self._roots) >= MAX_REMEMBERED_SALTS:
                self._roots.clear()
            self._roots[salt] = key
        return key

    def extend_keys(self, keys: list[bytes], token_ids: Sequence[int], num_blocks: int) -> None:
        """Make `keys`, which begins with a root key, reach to the end of block `num_blocks - 1`.

        `keys[i]` is the key of the prefix of i whole blocks of `token_ids`.
        """
        size = self._block_size
        for index in range(len(keys) - 1, num_blocks):
            run = array("I", token_ids[index * size : (index + 1) * size])
            keys.append(self._hash(keys[index], run.tobytes()))

    def _hash(self, parent: bytes, content: bytes) -> bytes:
        return hashlib.blake2b(parent + content, digest_size=_KEY_BYTES, key=self._secret).digest()

    # -- entries

    def find(self, key: bytes) -> int | None:
        """The full block that ends the prefix of this key."""
        return self._full.get(key)

    def find_part(self, parent_key: bytes, token_ids: Sequence[int]) -> tuple[int, int]:
        """Among the blocks after a prefix, the one that begins with most of `token_ids`.

        Returns:
            Its id, and how many of the tokens it begins with: (0, 0) if none does.
        """
        if not token_ids:
            return 0, 0
        candidates = self._continuations.get((parent_key, token_ids[0]), {})
        best_id, best_length = 0, 0
        for num_compared, block_id in enumerate(reversed(candidates)):
            if num_compared == MAX_COMPARED_BLOCKS:
                break
            length = _common_length(self._runs[block_id].token_ids, token_ids)
            if length > best_length:
                best_id, best_length = block_id, length
        return best_id, best_length

    def add(self, block_id: int, run: CachedRun) -> None:
        """Enter a block, in place of what it was entered as before."""
        if block_id in self._runs:
            self.remove(block_id)
        self._runs[block_id] = run
        if run.key is not None:
            self._full[run.key] = block_id
        self._continuations.setdefault((run.parent_key, run.token_ids[0]), {})[block_id] = None

    def remove(self, block_id: int) -> None:
        """Forget a block that is entered."""
        run = self._runs.pop(block_id)
        if run.key is not None:
            del self._full[run.key]
        place = (run.parent_key, run.token_ids[0])
        blocks = self._continuations[place]
        del blocks[block_id]
        if not blocks:
            del self._continuations[place]

    def clear(self) -> None:
        """Forget everything; keys made before are never met again."""
        self._generation += 1
        self._roots.clear()
        self._runs.clear()
        self._full.clear()
        self._continuations.clear()


def _common_length(first: Sequence[int], second: Sequence[int]) -> int:
    length = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        length += 1
    return length
