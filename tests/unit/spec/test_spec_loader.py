"""SpecLoader: the same answers from limited processes, and bombs that hurt nobody else."""

import asyncio
import time

import pytest

from cairn_common.spec import Limits, SpecError, SpecLoader, load_workflow

HELLO = """\
workflow:
  name: {{ n }}
  tasks:
  - {name: a, image: u, command: [x], args: ['{{output}}']}
default-values: {n: w}
"""
BROKEN = "workflow:\n  name: w\n  tasks:\n  - {name: a, imagee: u, command: [x]}\n"

TIME_BOMB = (
    "{% set l = range(9999) | list %}{% for a in l %}{% for b in l %}{% for c in l %}"
    "{% endfor %}{% endfor %}{% endfor %}"
)
MEMORY_BOMBS = [
    "{% set n = namespace(s='a') %}{% for i in range(50) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "{{ 'a' | center(10 ** 10) }}",
    "{{ '%9999999999d' | format(1) }}",
    "{{ range(99999) | join('a' * 1000000) }}",
]


async def test_answers_are_those_of_the_function():
    async with SpecLoader(workers=1) as loader:
        assert await loader.load(HELLO, set_variables=["n=v"], env_vars=["A=1"]) == load_workflow(
            HELLO, set_variables=["n=v"], env_vars=["A=1"]
        )
        with pytest.raises(SpecError) as caught:
            await loader.load(BROKEN, file="b.yaml")
        with pytest.raises(SpecError) as expected:
            load_workflow(BROKEN, file="b.yaml")
        assert caught.value.problems == expected.value.problems


async def test_a_hundred_calls_at_once():
    async with SpecLoader(workers=2) as loader:
        loaded = await asyncio.gather(
            *(loader.load(HELLO, set_variables=[f"n=w{i}"]) for i in range(100))
        )
        assert [one.spec.name for one in loaded] == [f"w{i}" for i in range(100)]


async def test_an_endless_template_costs_its_deadline_and_no_more():
    async with SpecLoader(workers=1, timeout=0.5) as loader:
        start = time.monotonic()
        waiting = asyncio.create_task(loader.load(TIME_BOMB))
        await asyncio.sleep(0)
        after = asyncio.create_task(loader.load(HELLO))
        with pytest.raises(SpecError, match=r"took longer than 0\.5 s"):
            await waiting
        assert (await after).spec.name == "w"
        assert time.monotonic() - start < 10


@pytest.mark.parametrize("bomb", MEMORY_BOMBS)
async def test_memory_is_bounded(bomb):
    async with SpecLoader(workers=1, timeout=10, memory_bytes=64 << 20) as loader:
        for _ in range(2):
            with pytest.raises(SpecError, match="too much memory"):
                await loader.load(bomb)
        assert (await loader.load(HELLO)).spec.name == "w"


async def test_a_cancelled_call_leaves_the_loader_usable():
    async with SpecLoader(workers=1, timeout=20) as loader:
        call = asyncio.create_task(loader.load(TIME_BOMB))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await loader.load(HELLO)).spec.name == "w"


async def test_gigantic_texts_do_not_travel():
    async with SpecLoader(workers=1) as loader:
        with pytest.raises(SpecError, match="more than 1,000 bytes"):
            await loader.load("x" * 2000, limits=Limits(max_bytes=1000))


async def test_large_honest_files_pass():
    tasks = "".join(
        f"  - name: t{i}\n    image: ubuntu:24.04\n    command: [echo, '{{{{output}}}}']\n"
        + (f"    inputs: [{{task: t{i - 1}}}]\n" if i else "")
        for i in range(5000)
    )
    async with SpecLoader(workers=1, memory_bytes=64 << 20) as loader:
        loaded = await loader.load(f"workflow:\n  name: w\n  tasks:\n{tasks}")
        assert len(loaded.spec.all_groups) == 5000


async def test_a_closed_loader_says_so():
    loader = SpecLoader()
    with pytest.raises(RuntimeError, match="not open"):
        await loader.load(HELLO)
    with pytest.raises(ValueError, match="at least one worker"):
        SpecLoader(workers=0)
