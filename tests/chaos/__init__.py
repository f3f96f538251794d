"""Chaos: real processes, real faults, and a checker that believes only what the tasks wrote down.

`python -m tests.chaos --minutes 15 --workflows 200 --seed 7` starts a whole standalone system with
two engines in a fresh home, keeps a mixture of workflows running in it, and injects faults in an
order that follows from the seed. Every attempt of every task reports its beginning and its end to
a journal. When all is over, the record (the engine's published views) is compared with the journal:
nothing lost, nothing run twice under one attempt number, nothing stuck.

    shapes      what is submitted, and what must become of it
    journal     what really ran
    system      the system under test and its processes
    load        keeps workflows running
    faults      what is done to the system
    probe       how long until work gets done again
    checker     record against journal (pure)
    verdict     the tables, the story of what went wrong, the line for machines
"""
