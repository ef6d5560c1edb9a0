"""Mutants of ``natsproto``: acknowledgements, ordered consumers, what is kept for a reconnect."""

from __future__ import annotations

from .mutant import Mutant

ACKS = "unit/natsproto/jetstream/api/test_acks.py::"
ORDERED = "unit/natsproto/jetstream/test_ordered_over.py::"


MUTANTS = (
    Mutant(
        "messages-of-any-subject",
        "natsproto/jetstream/direct_get.py",
        "if block is not None and self._only and",
        "if False and",
        "a server answers with another stream's messages when somebody else asks for them",
        "unit/natsproto/jetstream/test_direct_get.py::test_messages_of_another_subject",
    ),
    Mutant(
        "subjects-that-writers-name",
        "natsproto/jetstream/direct_get.py",
        "block.startswith(self._only, block.rfind(SUBJECT))",
        "self._only in block",
        "a stored message may have a header that says another subject",
        "unit/natsproto/jetstream/test_direct_get.py::test_messages_of_another_subject",
    ),
    Mutant(
        "publishes-for-others",
        "natsproto/jetstream/ordered.py",
        "if not is_flow_control(reply, self.stream, incarnation.name):",
        "if False:",
        "flow control is answered only where the server asks",
        "unit/natsproto/jetstream/test_ordered_flow_control.py::test_nothing_is_published_for_others",
    ),
    Mutant(
        "any-domain",
        "natsproto/jetstream/api/acks.py",
        "if ack.stream != self.stream or (ack.domain != self.domain and self.domain != ANY_DOMAIN):",
        "if ack.stream != self.stream:",
        "an acknowledgement counts with the expected domain",
        ACKS + "test_of_another",
    ),
    Mutant(
        "any-stream-refuses",
        "natsproto/jetstream/api/acks.py",
        "if named != self.stream:",
        "if False:",
        "a refusal by another stream is none",
        ACKS + "test_of_another",
    ),
    Mutant(
        "any-error-refuses",
        "natsproto/jetstream/api/acks.py",
        "if not isinstance(named, str) or not named:",
        "if False:",
        "an error that names no stream answers another request",
        ACKS + "test_an_error_that_names_no_stream_is_no_answer",
    ),
    Mutant(
        "token-alone",
        "natsproto/aio/requests.py",
        '        slot = self._slots.get(msg.subject)\n        rest = b""\n        if slot is None:\n'
        '            inbox, _, rest = msg.subject.rpartition(b".")\n'
        "            slot = self._slots.get(inbox)\n        if slot is not None:",
        "        slot = next((s for i, s in self._slots.items() if msg.subject.endswith(i[-12:])), None)\n"
        '        rest = b""\n        if slot is not None:',
        "a reply counts by its whole subject: pull consumers deliver under that of the stored message",
        "unit/natsproto/aio/test_requests.py::test_s18_the_right_token_under_another_subject",
    ),
    Mutant(
        "any-message-answers-the-api",
        "natsproto/aio/client.py",
        "if is_bare(msg):",
        "if True:",
        "an answer of the API has neither headers nor a reply subject",
        "unit/natsproto/aio/test_client.py::test_only_a_bare_answer_counts_for_a_bare_request",
    ),
    Mutant(
        "delivery-acknowledges",
        "natsproto/jetstream/publisher.py",
        "if not is_bare(msg):",
        "if False:",
        "an acknowledgement has neither headers nor a reply subject",
        "unit/natsproto/jetstream/test_publisher.py::test_what_a_peer_has_sent_is_no_acknowledgement",
    ),
    Mutant(
        "any-subject-is-delivered",
        "natsproto/jetstream/ordered.py",
        "if subject != owner.expected and",
        "if False and",
        "others may give a consumer another filter",
        "unit/natsproto/jetstream/test_ordered.py::test_a_consumer_that_others_have_changed",
    ),
    Mutant(
        "order-not-looked-at",
        "natsproto/jetstream/publisher.py",
        "if seq <= self.last_seq:",
        "if seq < self.last_seq:",
        "acknowledged sequences rise with the order of publishing",
        "unit/natsproto/jetstream/test_publisher.py::test_sequences_that_do_not_rise",
    ),
    Mutant(
        "counts-anew-unnoticed",
        "natsproto/jetstream/ordered.py",
        "if fresh or delivery.consumer_seq > self.consumer_seq:",
        "if delivery.consumer_seq > self.consumer_seq:",
        "a consumer that counts from one with something new has started over",
        ORDERED + "test_it_counts_from_one_with_something_new",
    ),
    Mutant(
        "heartbeat-counts-fewer",
        "natsproto/jetstream/ordered.py",
        "int(last[:20]) != incarnation.consumer_seq:",
        "int(last[:20]) > incarnation.consumer_seq:",
        "a heartbeat that has counted fewer comes from a consumer that has started over",
        ORDERED + "test_a_heartbeat_that_has_counted_fewer",
    ),
    Mutant(
        "told-twice",
        "natsproto/jetstream/ordered.py",
        "if not fresh:",
        "if False:",
        "nothing is handed on twice",
        ORDERED + "test_it_counts_beyond_where_it_was",
    ),
    Mutant(
        "old-messages-are-progress",
        "natsproto/jetstream/ordered.py",
        "if self.stream_seq > incarnation.began or incarnation.alive",
        "if incarnation.consumer_seq or incarnation.alive",
        "only what had not been seen before renews the budget of a consumer",
        "unit/natsproto/jetstream/test_ordered.py::test_old_messages_are_no_progress",
    ),
    Mutant(
        "held-back-for-ever",
        "natsproto/jetstream/ordered.py",
        "if self.limit is not None and self._stalled(self.limit):",
        "if False:",
        "who reads what there is does not wait without an end for a message",
        "unit/natsproto/jetstream/test_ordered_flow_control.py::test_a_stalled_consumer_has_a_limit",
    ),
    Mutant(
        "given-up-and-sent",
        "natsproto/aio/reconnect_buffer.py",
        "for each in kept if self._wanted(each.reply))",
        "for each in kept)",
        "a request that nobody waits for is not sent after a reconnect",
        "adversity/test_connection_loss.py::test_a_request_that_was_given_up_is_not_sent_later",
    ),
    Mutant(
        "refusal-of-another",
        "natsproto/aio/permission_refusals.py",
        "elif left == 0:",
        "if failed:",
        "a refusal names a subject: it is certain when all that may be meant were refused",
        "unit/natsproto/aio/test_permission_refusals.py::test_one_of_two",
    ),
    Mutant(
        "given-up-not-meant",
        "natsproto/aio/client.py",
        "self._connection.stopped_waiting(self.subject)",
        "pass",
        "what nobody waits for any more may be what is refused",
        "unit/natsproto/aio/test_permission_refusals.py::test_one_that_was_given_up",
    ),
    Mutant(
        "refused-once-and-for-all",
        "natsproto/aio/permission_refusals.py",
        "if reported is not None and self._answered(reported.pings):",
        "if reported is None:",
        "after a PONG no refusal of what was sent before it is to come",
        "unit/natsproto/aio/test_permission_refusals.py::test_one_of_two_and_no_other_refusal",
    ),
    Mutant(
        "answered-and-refused",
        "natsproto/aio/requests.py",
        "return 0 if self.answered else 1",
        "return 1",
        "what was answered is not what is refused",
        "unit/natsproto/aio/test_permission_refusals.py::test_answered_ones_do_not_count",
    ),
)
