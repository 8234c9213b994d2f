"""Tests of tests/system that are the same on Arm: queues and rings, ports of the console, the sandbox, QMP."""
import arm	# noqa: F401
import test_queues
from test_console import test_thirty_ports	# noqa: F401
from test_qmp import (client, server, start,	# noqa: F401
		      test_a_hundred_clients, test_events_and_their_order, test_every_command_answers,
		      test_many_commands_in_one_write, test_oversized_input_leaves_no_memory_behind,
		      test_signals_end_as_quit_does)
from test_sandbox import (test_a_guest_calls_only_what_is_listed,	# noqa: F401
			  test_as_seen_from_outside, test_broker_ends_with_the_program,
			  test_broker_only_if_it_can_be_asked)


def test_four_packed_queues(tmp_path):
	"""Split rings are those of every other test here."""
	test_queues.test_four_queues(True, tmp_path)
