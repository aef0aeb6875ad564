"""Mutants of replication: what other replicated logs did wrong, put into this one.

Each is a fault that lost or hid records elsewhere: docs/guarantees.md tells where.
"""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

REPLICA: Final = "broker/quorate_broker/replica"
FOLLOWER: Final = f"{REPLICA}/follower.py"
FOLLOWER_REPLICA: Final = f"{REPLICA}/follower_replica.py"
ISR_ENTRIES: Final = f"{REPLICA}/isr_entries.py"
LEADER: Final = f"{REPLICA}/leader.py"
LEADER_REPLICA: Final = f"{REPLICA}/leader_replica.py"
AWAITED: Final = f"{REPLICA}/awaited.py"
IN_SYNC: Final = f"{REPLICA}/in_sync_replicas.py"
DIVERGENCE: Final = f"{REPLICA}/divergence.py"
PRODUCERS: Final = f"{REPLICA}/producers.py"
DECISIONS: Final = "quorum/quorate_quorum/controller/decisions"
PARTITIONS: Final = f"{DECISIONS}/partitions.py"
LOSSY_ELECTIONS: Final = f"{DECISIONS}/lossy_elections.py"
DRAIN: Final = f"{DECISIONS}/drain.py"
CONFIG_CHANGE: Final = f"{DECISIONS}/config_change.py"
ISR_KEEPER: Final = "broker/quorate_broker/replication/isr.py"
SHARD: Final = "broker/quorate_broker/groups/shard.py"

BROKER_TESTS: Final = "tests/unit/quorate_broker"
STRANGERS: Final = f"{BROKER_TESTS}/replication/test_strangers.py"
STREAMS: Final = f"{BROKER_TESTS}/replication/test_streams.py"
FOLLOWER_TESTS: Final = f"{BROKER_TESTS}/replica/test_follower.py"
LEADER_TESTS: Final = f"{BROKER_TESTS}/replica/test_leader.py"
AWAITED_TESTS: Final = f"{BROKER_TESTS}/replica/test_awaited.py"
ISR_ENTRIES_TESTS: Final = "tests/simulation/test_isr_entries.py"
LEADER_REPLICA_TESTS: Final = f"{BROKER_TESTS}/replica/test_leader_replica.py"
PRODUCE_QUEUE_TESTS: Final = f"{BROKER_TESTS}/replica/test_produce_queue.py"
PRODUCERS_TESTS: Final = f"{BROKER_TESTS}/replica/test_producers.py"
CONTROLLER_TESTS: Final = "tests/unit/quorate_quorum/controller"
PARTITIONS_TESTS: Final = f"{CONTROLLER_TESTS}/test_partitions.py"
BROKERS_TESTS: Final = f"{CONTROLLER_TESTS}/test_brokers.py"
CONFIG_CHANGE_TESTS: Final = f"{CONTROLLER_TESTS}/test_config_change.py"
DRAIN_TESTS: Final = f"{CONTROLLER_TESTS}/test_drain.py"
OLDER_PROGRAMS: Final = "tests/unit/quorate_quorum/metadata/test_older_programs.py"

REPLICATION: Final = (
    Mutant(
        "start-before-high-watermark",
        "a follower takes over the high watermark before the log's start",
        FOLLOWER_REPLICA,
        "        machine.learn(fetched.high_watermark, log.log_end_offset)\n",
        "        machine.learn(fetched.high_watermark, log.log_end_offset)\n"
        "        self._take_high_watermark()\n",
        (
            "tests/unit/quorate_broker/replica/test_follower_reads.py"
            "::test_the_start_of_a_log_moves_before_its_high_watermark",
        ),
    ),
    Mutant(
        "cut-by-epoch",
        "a follower that restarts cuts its log to its own high watermark",
        FOLLOWER_REPLICA,
        "                is_synced = await self._replica_log.write(",
        "                if not self.machine.has_matched:\n"
        "                    await self._truncate(Truncate(self.machine.high_watermark))\n"
        "                is_synced = await self._replica_log.write(",
        (f"{STREAMS}::test_a_follower_that_restarts_keeps_what_it_has_and_may_lead",),
    ),
    Mutant(
        "cut-by-epoch",
        "a leader does not compare its followers' epochs with its own",
        DIVERGENCE,
        "if epoch < last_epoch or epoch_end < offset:",
        "if False:",
        (f"{STREAMS}::test_after_both_crash_logs_are_equal_below_the_high_watermark",),
    ),
    Mutant(
        "cut-by-epoch",
        "a follower that lacks the leader's epoch cuts to where that ends in the leader's log",
        FOLLOWER,
        "cut = min(ours[1], end_offset) if ours[0] == epoch else ours[1]",
        "cut = end_offset",
        (
            f"{FOLLOWER_TESTS}::test_it_steps_down_where_it_lacks_the_leaders_epoch",
            f"{STREAMS}::test_a_follower_steps_down_to_the_last_epoch_that_both_have",
        ),
    ),
    Mutant(
        "cut-by-epoch",
        "a leader notes its epoch before it has a record",
        LEADER_REPLICA,
        "        log.set_high_watermark(self.machine.high_watermark, self._log.hw_epoch)\n",
        "        self._log.epochs.assign(state.leader_epoch, self._log.log_end_offset)\n",
        (f"{STREAMS}::test_elections_without_records_do_not_confuse_anybody",),
    ),
    Mutant(
        "epochs-fence",
        "a caller of an older leader epoch is served",
        f"{REPLICA}/replica.py",
        "if theirs == ours:",
        "if theirs <= ours:",
        (
            f"{LEADER_REPLICA_TESTS}::test_another_leader_epoch_is_told_apart",
            f"{LEADER_REPLICA_TESTS}::test_a_fetch_that_diverges_or_is_stale_moves_no_state",
        ),
    ),
    Mutant(
        "epochs-fence",
        "a caller that knows a later leader epoch is fenced as if it knew an older one",
        f"{REPLICA}/replica.py",
        "if theirs < ours:",
        "if theirs != ours:",
        (f"{LEADER_REPLICA_TESTS}::test_another_leader_epoch_is_told_apart",),
    ),
    Mutant(
        "eligible-leaders",
        "a replica that leaves a too small ISR is forgotten as one that has all records",
        PARTITIONS,
        "elr=now.ordered(left - unsure),",
        "elr=(),",
        (
            f"{PARTITIONS_TESTS}::test_who_leaves_under_min_isr_enters_the_elr_until_the_isr_is_enough",
            f"{BROKERS_TESTS}::test_leaders_come_from_the_isr_then_from_the_elr_in_order_of_assignment",
        ),
    ),
    Mutant(
        "eligible-leaders",
        "the last member of an ISR leads on after a restart that lost the end of its log",
        PARTITIONS,
        "lossy = () if is_lossless(image, topic, old, broker_id) else (broker_id,)",
        "lossy = ()",
        (f"{BROKERS_TESTS}::test_a_registration_tells_whether_the_tail_is_there",),
    ),
    Mutant(
        "unclean-by-choice",
        "a replica outside ISR and ELR leads although one with all records may come back",
        LOSSY_ELECTIONS,
        "if (partition.isr or partition.elr) and not unclean:",
        "if False:",
        (f"{PARTITIONS_TESTS}::test_nobody_is_elected_while_an_elr_member_may_return",),
    ),
    Mutant(
        "unclean-by-choice",
        "an election that may lose records leaves no mark",
        LOSSY_ELECTIONS,
        "recovered_epoch=new.leader_epoch)",
        "recovered_epoch=old.recovered_epoch)",
        (
            f"{CONTROLLER_TESTS}/test_lossy_replicas.py::test_where_no_lossless_replica_is_left_the_furthest_leads_and_the_loss_is_marked",
        ),
    ),
    Mutant(
        "cut-before-mark",
        "a follower takes the leader's high watermark before it has cut its own tail",
        FOLLOWER_REPLICA,
        "            return self.machine.diverged(\n",
        "            if self.machine.learn(fetched.high_watermark, log.log_end_offset):\n"
        "                self._replica_log.set_high_watermark(\n"
        "                    self.machine.high_watermark, self.machine.high_watermark_epoch\n"
        "                )\n"
        "            return self.machine.diverged(\n",
        (f"{STREAMS}::test_a_diverging_tail_is_never_shown",),
    ),
    Mutant(
        "agreed-positions",
        "the position of a follower whose log diverges counts",
        LEADER_REPLICA,
        "        if diverging is not None:\n            return diverging\n",
        "        if diverging is not None:\n"
        "            self.machine.record_fetch(stream, request.fetch_offset, now_ms)\n"
        "            self._advance()\n"
        "            return diverging\n",
        (f"{LEADER_REPLICA_TESTS}::test_a_fetch_that_diverges_or_is_stale_moves_no_state",),
    ),
    Mutant(
        "agreed-positions",
        "a late request of a broker's former run counts for the new one",
        LEADER,
        "            if stream.is_older_than(progress.stream):\n                return False\n",
        "",
        (f"{LEADER_TESTS}::test_a_fetch_of_an_older_registration_or_stream_moves_nothing",),
    ),
    Mutant(
        "agreed-positions",
        "what the former run of a broker had counts for the new one",
        LEADER,
        "if stream.broker_epoch > progress.stream.broker_epoch:",
        "if False:",
        (f"{LEADER_TESTS}::test_what_an_old_incarnation_asked_for_says_nothing_of_the_new_one",),
    ),
    Mutant(
        "agreed-positions",
        "a replica may enter the ISR by what its broker's former run has fetched",
        LEADER,
        "            and progress.stream.broker_epoch == eligible_epoch(broker_id)\n",
        "",
        (f"{LEADER_TESTS}::test_only_the_registration_that_fetched_may_enter",),
    ),
    Mutant(
        "eligible-members",
        "a broker that was fenced meanwhile enters the ISR",
        PARTITIONS,
        '    if broker.fenced:\n        return "is fenced"\n',
        "",
        (f"{PARTITIONS_TESTS}::test_a_fenced_member_is_ineligible",),
    ),
    Mutant(
        "eligible-members",
        "a proposal that was made for a broker's former run lets the new one in",
        PARTITIONS,
        "if broker.epoch != member.broker_epoch:",
        "if False:",
        (f"{PARTITIONS_TESTS}::test_a_bad_proposal_is_refused",),
    ),
    Mutant(
        "mark-follows-start",
        "a follower that begins again at the leader's start keeps its high watermark",
        FOLLOWER,
        "self.high_watermark = offset\n\n    def _other_epoch",
        "pass\n\n    def _other_epoch",
        (
            f"{FOLLOWER_TESTS}::test_below_the_leaders_start_it_begins_again_and_moves_its_high_watermark",
            f"{STREAMS}::test_a_follower_below_the_leaders_start_begins_there_and_may_lead",
        ),
    ),
    Mutant(
        "roles-end",
        "an answer of the former leader cuts the log of the next one",
        FOLLOWER_REPLICA,
        '            if self.is_over:\n                return "this replica does not follow now"\n',
        "",
        (f"{STREAMS}::test_an_answer_that_comes_after_the_role_has_ended_cuts_nothing",),
    ),
    Mutant(
        "maximal-isr",
        "a member that the leader has proposed counts only after it hears that it is one",
        IN_SYNC,
        "proposed = self.proposal.isr if self.proposal is not None else ()",
        "proposed: tuple[int, ...] = ()",
        (
            f"{LEADER_TESTS}::test_a_proposed_member_counts_before_it_is_committed",
            f"{LEADER_TESTS}::test_the_property_holds_over_random_schedules",
        ),
    ),
    Mutant(
        "maximal-isr",
        "a member counts no more because a second try to add it was refused",
        IN_SYNC,
        "self._doubtful[broker_id] = self._lost_ms",
        "pass",
        (
            f"{LEADER_TESTS}::test_a_refused_member_counts_on_if_an_earlier_try_was_lost",
            f"{LEADER_TESTS}::test_the_property_holds_over_random_schedules",
        ),
    ),
    Mutant(
        "maximal-isr",
        "a leader that reaches no controller drops its followers by itself",
        IN_SYNC,
        "self.maximal = maximal_isr(isr, proposed, self._doubtful)",
        "self.maximal = maximal_isr(proposed or isr, self._doubtful)",
        (
            f"{LEADER_TESTS}::test_a_member_that_is_proposed_out_counts_until_that_is_committed",
            f"{STREAMS}::test_a_leader_that_reaches_no_controller_commits_nothing_by_itself",
        ),
    ),
    Mutant(
        "staying-leader-keeps",
        "a batch waits on under a leader although another may have led between",
        f"{REPLICA}/partition.py",
        "and state.leader_epoch == role.leader_epoch + 1",
        "and state.leader_epoch > role.leader_epoch",
        (f"{PRODUCE_QUEUE_TESTS}::test_what_waits_fails_if_another_may_have_led_between",),
    ),
    Mutant(
        "staying-leader-keeps",
        "a leader that stays fails all batches in flight when a replica is removed",
        f"{REPLICA}/partition.py",
        "if not (may_lead and _leads_on(self.role, state)):",
        "if True:",
        (
            f"{PRODUCE_QUEUE_TESTS}"
            "::test_a_leader_that_leads_the_next_epoch_keeps_what_waits_for_its_commit",
            f"{PRODUCE_QUEUE_TESTS}"
            "::test_a_batch_that_is_being_appended_when_the_next_epoch_begins_is_written_once",
        ),
    ),
    Mutant(
        "staying-leader-keeps",
        "a coordinator's batches of the last epoch are taken into the next one",
        f"{REPLICA}/produce_queue.py",
        "            if entry.chain is None:\n                self.add(entry)",
        "            if True:\n                self.add(entry)",
        (f"{PRODUCE_QUEUE_TESTS}::test_batches_of_the_broker_itself_end_with_the_epoch",),
    ),
    Mutant(
        "staying-leader-keeps",
        "batches wait on in a next epoch whose ISR is below min.insync.replicas",
        LEADER_REPLICA,
        "        self._save_own_end()\n        self._isr_changed()",
        "        self._count_own_end()",
        (f"{PRODUCE_QUEUE_TESTS}::test_what_waits_fails_in_a_next_epoch_whose_isr_is_too_small",),
    ),
    Mutant(
        "shrink-moves-mark",
        "a batch that waits for a dead member is not answered when the member leaves the ISR",
        LEADER_REPLICA,
        "            self.queue.waits.isr_shrank()\n        self._advance()\n",
        "            self.queue.waits.isr_shrank()\n",
        (f"{STREAMS}::test_the_high_watermark_moves_when_a_dead_member_leaves_the_isr",),
    ),
    Mutant(
        "shrink-moves-mark",
        "a follower that leaves the ISR ends the leader epoch, and with it every batch that waits",
        PARTITIONS,
        "    is_new_reign = leader != old.leader or ",
        "    is_new_reign = members != set(old.isr) or leader != old.leader or ",
        (
            f"{PARTITIONS_TESTS}::test_an_isr_shrinks_and_grows_as_its_leader_proposes",
            f"{BROKERS_TESTS}::test_a_follower_that_is_fenced_changes_no_leader_epoch",
        ),
    ),
    Mutant(
        "proposals-end",
        "a leader that has no answer to its proposal proposes nothing more",
        IN_SYNC,
        "            self._is_in_flight = False\n            self._lost_ms = now_ms\n",
        "            self._lost_ms = now_ms\n",
        (f"{LEADER_TESTS}::test_a_proposed_member_counts_before_it_is_committed",),
    ),
    Mutant(
        "proposals-end",
        "a proposal that the controller did not answer stays under way",
        ISR_KEEPER,
        "            leader.isr_lost(proposal)\n        return False\n",
        "            pass\n        return False\n",
        (f"{STREAMS}::test_a_proposal_without_an_answer_is_sent_again",),
    ),
    Mutant(
        "proposals-end",
        "an image does not end the proposal that it decides",
        IN_SYNC,
        "        self._doubtful.clear()\n        self._drop_proposal()\n",
        "        self._doubtful.clear()\n",
        (f"{LEADER_TESTS}::test_an_image_ends_the_proposal_that_it_decides",),
    ),
    Mutant(
        "min-isr-commits",
        "the high watermark moves although the ISR is below min ISR",
        LEADER,
        "        if not self.has_enough_replicas:\n            return False\n",
        "",
        (
            f"{LEADER_TESTS}::test_the_high_watermark_stands_while_the_isr_is_below_min_isr",
            f"{STREAMS}::test_nothing_commits_under_min_isr",
        ),
    ),
    Mutant(
        "min-isr-commits",
        "a batch that was written below min ISR counts as not written",
        "clients/quorate/producer/sender.py",
        "    errors.NotEnoughReplicasError,\n",
        "    errors.NotEnoughReplicasError,\n    errors.NotEnoughReplicasAfterAppendError,\n",
        (
            "tests/unit/quorate/producer/test_producer.py::test_a_record_that_expires_after_refusals_alone_was_not_written",
        ),
    ),
    Mutant(
        "committed-reads",
        "a consumer reads on to the end of the log",
        LEADER_REPLICA,
        "self._read_batches(offset, high_watermark, bytes_max, at_least_one)",
        "self._read_batches(offset, end, bytes_max, at_least_one)",
        (
            f"{LEADER_REPLICA_TESTS}::test_fetch_between_the_high_watermark_and_the_end_is_empty",
            f"{LEADER_REPLICA_TESTS}::test_reading_while_appending_shows_nothing_beyond_the_high_watermark",
        ),
    ),
    Mutant(
        "committed-reads",
        "a read that a cut overtook is served",
        LEADER_REPLICA,
        "            if self.is_over:  # the log may have been cut during the read\n",
        "            if False:\n",
        (f"{LEADER_REPLICA_TESTS}::test_a_read_that_outlives_the_reign_is_not_served",),
    ),
    Mutant(
        "last-run-kept",
        "a broker forgets how its last run ended before the controller knows",
        "broker/quorate_broker/lifecycle.py",
        "        await self._catch_up(apply_offset)\n        await self._directories.begin_run()\n",
        "        await self._directories.begin_run()\n        await self._catch_up(apply_offset)\n",
        (f"{BROKER_TESTS}/test_lifecycle.py::test_nothing_begins_before_the_image_has_passed_it",),
    ),
    Mutant(
        "idempotence",
        "a partition remembers fewer batches than a producer may have in flight",
        PRODUCERS,
        "BATCHES_REMEMBERED = 5",
        "BATCHES_REMEMBERED = 4",
        (f"{PRODUCERS_TESTS}::test_each_of_the_last_five_batches_is_known_again",),
    ),
    Mutant(
        "idempotence",
        "a batch that is older than what is remembered passes for a gap",
        PRODUCERS,
        "if self._is_before_the_window(span[1], expected):",
        "if False:",
        (f"{PRODUCERS_TESTS}::test_a_batch_older_than_the_window_is_a_duplicate_and_no_gap",),
    ),
    Mutant(
        "groups-outlive-coordinators",
        "a new coordinator reads its log before all of it is committed",
        SHARD,
        "while self.leader.machine.high_watermark < end and not self.leader.is_over:",
        "while False:",
        (
            f"{BROKER_TESTS}/groups/test_shard.py::test_a_new_leader_answers_only_when_all_of_its_log_is_committed",
        ),
    ),
    Mutant(
        "own-bytes",
        "a batch that ends while it is on the wire gives its bytes to the next one",
        "clients/quorate/producer/partition_queue.py",
        "            self.encoded = self.builder.build()\n",
        '            pool = Batch.encode.__dict__.setdefault("pool", bytearray(1 << 16))\n'
        "            built = self.builder.build()\n"
        "            pool[: len(built)] = built\n"
        "            self.encoded = memoryview(pool)[: len(built)]\n",
        (
            "tests/unit/quorate/producer/test_accumulator.py::test_bytes_on_the_wire_never_change_when_a_batch_ends_early",
        ),
    ),
    Mutant(
        "drained-leads-last",
        "a drain of leaders leaves them where they are",
        DRAIN,
        "if old.leader == self.broker_id:",
        "if False:",
        (f"{DRAIN_TESTS}::test_leaderships_go_to_other_members_of_the_isr_in_new_epochs",),
    ),
    Mutant(
        "drained-leads-last",
        "an election prefers a drained broker that stands first",
        PARTITIONS,
        "undrained = (b for b in found if not image.brokers[b].cordoned)",
        "undrained = iter(found)",
        (f"{DRAIN_TESTS}::test_a_drain_hands_no_leadership_to_another_drained_broker",),
    ),
    Mutant(
        "drained-leads-last",
        "a drained leader is not relieved when another member may lead again",
        f"{DECISIONS}/requested_elections.py",
        "    if relieved is not old:\n        return relieved\n",
        "",
        (f"{DRAIN_TESTS}::test_a_drained_leader_is_relieved_when_another_member_may_lead",),
    ),
    Mutant(
        "drained-leads-last",
        "a broker that was restarted is no longer drained",
        f"{DECISIONS}/brokers.py",
        "cordoned=old is not None and old.cordoned,",
        "cordoned=False,",
        (f"{DRAIN_TESTS}::test_the_mark_survives_a_registration_and_is_taken_away_once",),
    ),
    Mutant(
        "drained-leads-last",
        "a drained broker gets new replicas",
        f"{DECISIONS}/topics.py",
        "    if broker.cordoned:\n",
        "    if False:\n",
        (f"{DRAIN_TESTS}::test_a_drained_broker_gets_no_new_replicas",),
    ),
    Mutant(
        "emptied-before-lowered",
        "a partition that changes after its turn is not looked at again",
        CONFIG_CHANGE,
        "                self._again[change.topic_id, change.partition] = None\n",
        "                _ = change\n",
        (
            f"{CONFIG_CHANGE_TESTS}::test_a_partition_that_changes_after_its_turn_is_looked_at_again",
        ),
    ),
    Mutant(
        "emptied-before-lowered",
        "another change of the config does not begin the looks anew",
        CONFIG_CHANGE,
        "            elif self._may_count_here(event.config):\n",
        "            elif False:\n",
        (f"{CONFIG_CHANGE_TESTS}::test_another_change_of_the_same_config_begins_the_looks_anew",),
    ),
    Mutant(
        "emptied-before-lowered",
        "the config comes before the ELRs are emptied",
        CONFIG_CHANGE,
        "return Outcome((*events, *changes), True)",
        "return Outcome((*changes, *events), True)",
        (
            f"{CONTROLLER_TESTS}/test_topics.py"
            "::test_an_elr_is_void_before_the_isr_may_commit_alone_wherever_the_log_ends",
        ),
    ),
    Mutant(
        "emptied-before-lowered",
        "a change in turns does not see what others propose",
        "quorum/quorate_quorum/controller/driver/reign.py",
        "            for told in (self.when_proposed, *self._watches):\n",
        "            for told in (self.when_proposed,):\n",
        (
            f"{CONTROLLER_TESTS}/test_reign.py"
            "::test_a_change_in_turns_sees_what_others_propose_between_its_turns",
        ),
    ),
    Mutant(
        "short-turns",
        "a change of one topic's min.insync.replicas looks at all topics",
        CONFIG_CHANGE,
        "        if self.request.topic:\n            self._topics",
        "        if False:\n            self._topics",
        (f"{CONFIG_CHANGE_TESTS}::test_a_change_of_a_topic_looks_at_its_own_partitions_alone",),
    ),
    Mutant(
        "short-turns",
        "all ELRs are emptied in one turn",
        CONFIG_CHANGE,
        "if looked == self.looked_max or len(events) == self.changed_max:",
        "if False:",
        (
            f"{CONFIG_CHANGE_TESTS}"
            "::test_a_change_of_the_default_goes_in_bounded_turns_and_its_config_is_last",
        ),
    ),
    Mutant(
        "old-nodes-understand",
        "a broker is marked as drained although nodes may not know the mark",
        DRAIN,
        "elif cordoned and level is not None and level < DRAINED_BROKERS:",
        "elif False:",
        (f"{DRAIN_TESTS}::test_no_broker_is_marked_while_nodes_may_not_know_the_mark",),
    ),
    Mutant(
        "older-controllers-replay",
        "the throttle of a move that an older controller has ended stays",
        "quorum/quorate_quorum/metadata/topics.py",
        "new = of_now(CHANGE.changed(old, event))",
        "new = CHANGE.changed(old, event)",
        (
            f"{OLDER_PROGRAMS}::test_a_throttled_move_that_an_older_controller_ends_has_no_throttle",
            f"{OLDER_PROGRAMS}::test_controllers_of_two_releases_take_turns",
        ),
    ),
    Mutant(
        "older-controllers-replay",
        "the first order of a move that an older controller has ended stays",
        "quorum/quorate_quorum/metadata/partitions.py",
        "    if state.original and not _is_original_known(state):\n",
        "    if False:\n",
        (
            f"{OLDER_PROGRAMS}"
            "::test_an_older_controller_that_ends_a_move_ends_what_is_known_of_its_begin",
        ),
    ),
    Mutant(
        "cancelled-moves-restore",
        "a cancelled move leaves the order of its target",
        f"{DECISIONS}/reassignment.py",
        "return reassigned(image, topic, old, old.before, choice, because)",
        "before = [b for b in old.broker_ids if b not in old.adding]\n"
        "    return reassigned(image, topic, old, before, choice, because)",
        (
            f"{CONTROLLER_TESTS}/test_reassignment.py"
            "::test_a_move_cancelled_has_its_first_replicas_again_in_their_order",
        ),
    ),
    Mutant(
        "cancelled-moves-restore",
        "a move that replaces another forgets the first order",
        f"{DECISIONS}/reassignment.py",
        "    original = old.before\n",
        "    original = tuple(b for b in old.broker_ids if b not in old.adding)\n",
        (
            f"{CONTROLLER_TESTS}/test_reassignment.py"
            "::test_a_move_cancelled_has_its_first_replicas_again_in_their_order",
        ),
    ),
    Mutant(
        "older-controllers-replay",
        "a snapshot with the throttle of a move that has ended stops the node",
        "quorum/quorate_quorum/metadata/topics.py",
        "partition = of_now(PARTITION.image(event))",
        "partition = PARTITION.image(event)",
        (f"{OLDER_PROGRAMS}::test_a_snapshot_has_no_throttle_without_a_copy",),
    ),
    Mutant(
        "old-nodes-understand",
        "a level is raised although a node does not know it",
        f"{DECISIONS}/features.py",
        "    if lacking:\n",
        "    if False:\n",
        (
            "tests/unit/quorate_quorum/test_features_in_a_cluster.py::test_a_broker_of_the_first_release_holds_the_level_back",
        ),
    ),
    Mutant(
        "blocking-consumer",
        "stop in a callback of the listener waits for the end of that callback",
        "clients/quorate/sync/consumer.py",
        '        self._refuse_in_callback("stop")\n',
        "",
        (
            "tests/unit/quorate/sync/test_clients.py::test_stop_is_refused_in_the_thread_of_a_callback_of_its_own_consumer",
        ),
    ),
    Mutant(
        "near-replicas-enter",
        "the high watermark does not wait for a replica that is about to enter the ISR",
        LEADER,
        "awaited = (*self.in_sync.maximal, *self.awaited.broker_ids)",
        "awaited = self.in_sync.maximal",
        (f"{ISR_ENTRIES_TESTS}::test_a_replica_enters_the_isr_while_writes_go_on",),
    ),
    Mutant(
        "near-replicas-enter",
        "a replica that is about to enter is sent its records as one that catches up",
        LEADER,
        "return broker_id in self.in_sync.maximal or broker_id in self.awaited.broker_ids",
        "return broker_id in self.in_sync.maximal",
        (
            f"{AWAITED_TESTS}::test_the_high_watermark_waits_for_a_replica_that_keeps_up_until_it_may_enter",
        ),
    ),
    Mutant(
        "near-replicas-enter",
        "the high watermark waits for a replica that does not keep up",
        LEADER,
        "        self.round_ms = None\n        if offset",
        "        self.round_ms = now_ms - self.fetched_ms\n        if offset",
        (f"{AWAITED_TESTS}::test_a_replica_that_does_not_keep_up_is_not_waited_for",),
    ),
    Mutant(
        "near-replicas-enter",
        "the high watermark waits for a replica that may not enter the ISR",
        ISR_ENTRIES,
        "if is_removed or replica.host.eligible_epoch(replica, broker_id) != stream.broker_epoch:",
        "if False:",
        (
            f"{LEADER_REPLICA_TESTS}::test_the_high_watermark_waits_only_for_a_replica_that_may_enter_the_isr",
        ),
    ),
    Mutant(
        "near-replicas-enter",
        "the wait for a replica that dies does not end",
        ISR_ENTRIES,
        "        self._leader.awaited.over(wait)\n",
        "",
        (
            f"{ISR_ENTRIES_TESTS}::test_a_replica_that_dies_when_it_is_about_to_enter_delays_commits_once_and_little",
        ),
    ),
    Mutant(
        "near-replicas-enter",
        "the high watermark waits for the same replica again and again",
        AWAITED,
        "if began_ms is not None and now_ms - began_ms < self.lag_ms:",
        "if False:",
        (
            f"{AWAITED_TESTS}::test_the_wait_for_a_replica_that_dies_ends_and_comes_once_in_the_lag_time",
            f"{AWAITED_TESTS}::test_a_refused_replica_is_not_waited_for_again_at_once",
        ),
    ),
    Mutant(
        "near-replicas-enter",
        "the high watermark waits for a replica that cannot be proposed yet",
        LEADER,
        "self.in_sync.proposal is not None or self.waits_for(broker_id):",
        "self.waits_for(broker_id):",
        (f"{AWAITED_TESTS}::test_no_wait_begins_while_a_proposal_is_undecided",),
    ),
    Mutant(
        "near-replicas-enter",
        "the high watermark goes back to the end of the replica that it waits for",
        LEADER,
        "        if least < self.high_watermark:\n            return False\n",
        "",
        (f"{AWAITED_TESTS}::test_it_never_goes_back_to_the_end_of_the_replica_that_it_waits_for",),
    ),
    Mutant(
        "no-strangers",
        "a process that claims the registration of another one fetches as that broker",
        "broker/quorate_broker/replication/service.py",
        "if broker.incarnation != stream.incarnation:",
        "if False:",
        (f"{STRANGERS}::test_a_stream_that_claims_what_is_not_its_own_is_refused",),
    ),
    Mutant(
        "no-strangers",
        "a position that waited for the leader's role is taken from an older run of its broker",
        "broker/quorate_broker/replication/service.py",
        "            self._check_registration(self.stream)\n",
        "            pass\n",
        (
            f"{STRANGERS}::test_a_position_that_waited_is_taken_only_for_the_registration_it_came_with",
        ),
    ),
    Mutant(
        "no-strangers",
        "a broker fetches a partition of which it has no replica",
        LEADER_REPLICA,
        "if stream.replica_id not in self.machine.replicas:",
        "if False:",
        (f"{STRANGERS}::test_a_stream_that_claims_what_is_not_its_own_is_refused",),
    ),
    Mutant(
        "no-strangers",
        "a broker's former run goes on to propose ISRs",
        PARTITIONS,
        "if broker is None or broker.epoch != request.broker_epoch or broker.fenced:",
        "if broker is None or broker.fenced:",
        (f"{PARTITIONS_TESTS}::test_a_broker_that_may_propose_nothing_is_told_why",),
    ),
    Mutant(
        "plans-of-now",
        "a plan moves a partition that has other replicas than it was made from",
        f"{DECISIONS}/reassignment.py",
        "if tuple(asked.expected) != old.broker_ids:",
        "if False:",
        (f"{CONTROLLER_TESTS}/test_reassignment.py::test_a_plan_of_another_time_is_refused",),
    ),
    Mutant(
        "plans-of-now",
        "the command does not tell from which replicas its plan was made",
        "clients/quorate_cli/partition_moves.py",
        "expected=given.expected or None,",
        "expected=None,",
        ("tests/cluster/test_bad_moves.py::test_a_plan_of_yesterday_is_refused_by_the_command",),
    ),
)
