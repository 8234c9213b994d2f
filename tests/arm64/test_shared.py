"""Tests of tests/system that are the same on Arm: queues and rings, ports of the console, the sandbox, QMP."""
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "system"))

if not os.uname().machine == "aarch64":
	pytest.skip("runs on an Arm host: tests/lab/run --arch aarch64", allow_module_level=True)

from test_console import test_thirty_ports	# noqa: E402, F401
from test_qmp import (client, server, start,	# noqa: E402, F401
		      test_a_client_that_never_reads, test_a_hundred_clients, test_events_and_their_order,
		      test_every_command_answers, test_many_commands_in_one_write,
		      test_oversized_input_leaves_no_memory_behind, test_signals_end_as_quit_does)
from test_queues import test_four_queues	# noqa: E402, F401
from test_sandbox import (test_a_guest_calls_only_what_is_listed,	# noqa: E402, F401
			  test_as_seen_from_outside, test_broker_ends_with_the_program,
			  test_broker_only_if_it_can_be_asked)
