from __future__ import annotations

import threading
from dataclasses import replace

from kvmscope.reproducer import assembling, parse
from kvmscope.reproducer.assembling import assemble_reproducer


def test_what_is_the_same_is_assembled_once_and_everything_counts() -> None:
    base = parse("nop\nhlt\n", "a.asm")
    first = assemble_reproducer(base, cross_check=False)
    assert assemble_reproducer(replace(base, filename="b.asm"), cross_check=False) is first
    for other in (
        replace(base, origin=0x500000),
        replace(base, source="nop\nnop\nhlt\n"),
        replace(base, backend="gas"),
    ):
        assert assemble_reproducer(other, cross_check=False) is not first
    image = assemble_reproducer(replace(base, origin=0x500000), cross_check=False).image
    assert image is not None
    assert image.sections[0].address == 0x500000


def test_many_threads_and_a_bounded_cache() -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for n in range(30):
                source = parse(f"mov eax, {(number + n) % 7}\n", "a.asm")
                image = assemble_reproducer(source, cross_check=False).image
                assert image is not None
                assert image.sections[0].data[1] == (number + n) % 7
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(assembling._cache) <= assembling._KEPT
