"""Sealing and unsealing whole files: several segments at a time, in constant memory."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cryptography.exceptions import InvalidTag

from sealbook.errors import InputError
from sealbook.sealing import segments
from sealbook.sealing.access import LocalFile, reading
from sealbook.sealing.blockio import BLOCK, BlockFile, aligned_buffer, window_size
from sealbook.sealing.errors import UnsealError
from sealbook.sealing.header import HEADER, SealedInfo, encode_slot, info, new_header
from sealbook.sealing.keys import KeyProvider
from sealbook.sealing.progress import byte_progress
from sealbook.sealing.reader import open_stream, read_header
from sealbook.sealing.segments import SEGMENT, STREAM_HEADER, TAG
from sealbook.sealing.writer import atomic_target

#: Segments that are read, encrypted and written in one go, over all threads. Large requests halve the cost
#: of I/O, more of them than this gain nothing; two buffers of this size are all the memory that is needed.
_IN_FLIGHT = 16
#: More threads than this would make the requests small; a few saturate every disk.
_MAX_THREADS = 4


def seal_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    key: str,
    keys: KeyProvider,
    context: Mapping[str, str] | None = None,
    codec: str = "file",
    codec_metadata: Mapping[str, Any] | None = None,
    sealer: Mapping[str, Any] | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> SealedInfo:
    """Seal a file.

    Parameters
    ----------
    source
        A regular local file; it is not changed. May be the same path as `target`.
    target
        The sealed file; it has this name when it is complete and on the disk, or never.
    key
        Name of the key to seal to; its newest version is used.
    keys
        Releases it.
    context
        Public text that the file is bound to.
    codec, codec_metadata, sealer
        Public, for the header: what reads the content again, and who sealed it.
    threads
        How many work at a time, up to 4; one for each core that may be used, by default.
    progress
        Show a bar when it takes longer than a second.

    Returns
    -------
    SealedInfo
        What the sealed file says about itself.

    Raises
    ------
    InputError
        A file that cannot be read or written, a bad key name or context, a file that changed meanwhile.
    KeyUnavailableError
        `keys` does not release the key.
    """
    with contextlib.ExitStack() as stack:
        file = LocalFile(source)
        stack.callback(file.close)
        if file.size > segments.MAX_PLAINTEXT:
            raise InputError(f"{file.name} is larger than the 4 PiB a sealed file holds; seal it in parts.")
        before = os.fstat(file.descriptor)
        opened = new_header(
            keys.current(key), context=context, codec=codec, codec_metadata=codec_metadata, sealer=sealer
        )
        cipher = opened.cipher()
        stream = segments.stream_size(file.size)
        count = segments.segment_count(file.size)
        plain = _source(stack, file)
        sealed = _target(stack, target, HEADER + stream, mode=0o666)

        def worker(size: int) -> Callable[[range], int]:
            taken, made = _buffers(size, stream)

            def seal(batch: range) -> int:
                start = segments.plain_start(batch.start)
                end = min(segments.plain_start(batch.stop), file.size)
                with reading(file.name):
                    text = plain.read(taken, start, end - start)
                done = 0
                if batch.start == 0:
                    made[:STREAM_HEADER] = cipher.stream_header
                    done = STREAM_HEADER
                for index in batch:
                    begin = segments.plain_start(index)
                    length = min(segments.plain_start(index + 1), end) - begin
                    with reading(file.name):
                        piece = text(begin - start, length)
                    if len(piece) != length:
                        raise _changed(file)
                    out = made[done : done + len(piece) + TAG]
                    cipher.encrypt_into(index, index == count - 1, piece, out)
                    done += len(out)
                sealed.write(made[:done], HEADER + batch.start * SEGMENT)
                return end - start

            return seal

        _run(worker, count, threads, byte_progress(file.size, what="Sealing", shown=progress))
        after = os.fstat(file.descriptor)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise _changed(file)
        _at_start(sealed, encode_slot(opened.header, opened.data_key) * 2)
    return info(opened.header, name=os.fspath(target), sealed_size=HEADER + stream, authenticated=True)


def unseal_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    keys: KeyProvider,
    context: Mapping[str, str] | None = None,
    key: str | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> SealedInfo:
    """Unseal a file.

    Parameters
    ----------
    source
        A local sealed file.
    target
        The plaintext, with mode 0600; it has this name when all of it was authentic, or never.
    keys
        Releases the key that the file is sealed to.
    context
        When given, the file must have been sealed with exactly this context.
    key
        When given, the file must be sealed to the key of this name.
    threads, progress
        As for :func:`seal_file`.

    Returns
    -------
    SealedInfo
        What the sealed file says about itself; authentic.

    Raises
    ------
    UnsealError
        The file, key or context is not the one of the sealing.
    KeyUnavailableError
        `keys` does not release the key.
    NotSealedError, InputError
        It is no sealed file, or one of the files cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        file = LocalFile(source)
        stack.callback(file.close)
        about, cipher = open_stream(file, read_header(file, keys=keys, context=context, key=key))
        stream = segments.stream_size(about.size)
        count = segments.segment_count(about.size)
        sealed = _source(stack, file)
        plain = _target(stack, target, about.size, mode=0o600)

        def worker(size: int) -> Callable[[range], int]:
            taken, made = _buffers(size, stream)

            def unseal(batch: range) -> int:
                first = batch.start * SEGMENT
                end = min(batch.stop * SEGMENT, stream)
                with reading(file.name):
                    text = sealed.read(taken, HEADER + first, end - first)
                start = segments.plain_start(batch.start)
                # The offset within the block is that of the file, as direct writing asks.
                lead = done = start % BLOCK
                for index in batch:
                    begin = segments.cipher_start(index)
                    length = min((index + 1) * SEGMENT, end) - begin
                    out = made[done : done + length - TAG]
                    with reading(file.name):
                        piece = text(begin - first, length)
                    try:
                        cipher.decrypt_into(index, index == count - 1, piece, out)
                    except (InvalidTag, ValueError):
                        raise UnsealError(file.name) from None
                    done += len(out)
                plain.write(made[lead:done], start)
                return done - lead

            return unseal

        _run(worker, count, threads, byte_progress(about.size, what="Unsealing", shown=progress))
    return about


class _Work:
    """Batches of segments, handed out one by one until there are no more or one has failed."""

    def __init__(self, count: int, size: int, bar: Any) -> None:
        self._batches = (range(i, min(i + size, count)) for i in range(0, count, size))
        self._bar = bar
        self._lock = threading.Lock()
        self.failure: BaseException | None = None

    def batches(self) -> Iterator[range]:
        while True:
            with self._lock:
                batch = None if self.failure else next(self._batches, None)
            if batch is None:
                return
            yield batch

    def run(self, make: Callable[[], Callable[[range], int]]) -> None:
        try:
            work = make()
            for batch in self.batches():
                done = work(batch)
                with self._lock:
                    self._bar.update(done)
        except BaseException as error:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        with self._lock:
            self.failure = self.failure or error


def _run(worker: Callable[[int], Callable[[range], int]], count: int, threads: int | None, bar: Any) -> None:
    """Let `threads` workers, this thread among them, do all segments."""
    if threads is None:
        threads = len(os.sched_getaffinity(0))  # the cores that this process may use
    if type(threads) is not int or threads < 1:
        raise InputError("The number of threads must be a whole number from 1.")
    threads = min(threads, _MAX_THREADS, count)
    size = min(_IN_FLIGHT // threads, -(-count // threads))
    with bar:
        work = _Work(count, size, bar)
        helpers = [
            threading.Thread(target=work.run, args=(lambda: worker(size),), daemon=True)
            for _ in range(threads - 1)
        ]
        try:
            for helper in helpers:
                helper.start()
            work.run(lambda: worker(size))
        except BaseException as error:
            work.fail(error)
        for helper in helpers:
            # Whatever interrupts the waiting, nobody may still use the descriptors when they are closed.
            while helper.is_alive():
                try:
                    helper.join()
                except BaseException as error:
                    work.fail(error)
    if work.failure is not None:
        raise work.failure


def _buffers(size: int, stream: int) -> tuple[memoryview, memoryview]:
    length = window_size(min(size * SEGMENT, stream))
    return aligned_buffer(length), aligned_buffer(length)


def _source(stack: contextlib.ExitStack, file: LocalFile) -> BlockFile:
    blocks = BlockFile(file.descriptor, size=file.size, flags=os.O_RDONLY)
    stack.callback(blocks.close)
    return blocks


def _target(stack: contextlib.ExitStack, path: str | os.PathLike[str], size: int, *, mode: int) -> BlockFile:
    """Begin an atomic write of `size` bytes."""
    file = stack.enter_context(atomic_target(path, mode=mode))
    # Threads write at their places; a file that grew with each write would have them wait for each other.
    os.truncate(file.fileno(), size)
    blocks = BlockFile(file.fileno(), size=size, flags=os.O_RDWR)
    stack.callback(blocks.close)
    return blocks


def _at_start(file: BlockFile, data: bytes) -> None:
    buffer = aligned_buffer(len(data))
    buffer[:] = data
    file.write(buffer, 0)


def _changed(file: LocalFile) -> InputError:
    return InputError(f"{file.name} changed while it was being sealed; seal it again.")
