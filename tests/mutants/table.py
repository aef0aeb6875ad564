"""The rules of docs/guarantees.md taken out: one change each, which a named test must catch."""

from __future__ import annotations

from tests.mutants.mutant import Mutant
from tests.mutants.replication import REPLICATION

RAFT = "quorum/quorate_quorum/raft/machine/raft.py"
ROLE = "quorum/quorate_quorum/raft/machine/role.py"
LEADER = "quorum/quorate_quorum/raft/machine/leader.py"
FOLLOWER = "quorum/quorate_quorum/raft/machine/follower.py"
STATE = "quorum/quorate_quorum/raft/machine/state.py"
CANDIDATE = "quorum/quorate_quorum/raft/machine/candidate.py"
VOTER_CHANGE = "quorum/quorate_quorum/raft/machine/voter_change.py"
PROGRESS_OF_REPLICAS = "quorum/quorate_quorum/raft/machine/replicas.py"
ROUNDS = "quorum/quorate_quorum/raft/machine/rounds.py"
HARD_STATE = "quorum/quorate_quorum/raft/machine/hard_state.py"
TRANSFERRING = "quorum/quorate_quorum/raft/machine/transfer.py"
LEDGER = "quorum/quorate_quorum/raft/machine/ledger.py"
STORAGE = "quorum/quorate_quorum/raft/driver/storage.py"
TAKING = "quorum/quorate_quorum/raft/driver/taker.py"
RAFT_LOOP = "quorum/quorate_quorum/raft/driver/loop.py"
QUORUM_STATE = "quorum/quorate_quorum/raft/driver/quorum_state.py"
SNAPSHOTS_OF_A_VOTER = "quorum/quorate_quorum/snapshots/store.py"
VOTERS = "quorum/quorate_quorum/raft/machine/voters.py"

WATCH = "quorum/quorate_quorum/metadata/watch.py"
RECOVERED = "quorum/quorate_quorum/metadata/recovered.py"
SURVIVOR = "quorum/quorate_quorum/recover/survivor.py"
DECISION = "quorum/quorate_quorum/recover/decision.py"
CHAIN = "quorum/quorate_quorum/metadata_log.py"

GROUP = "clients/quorate/consumer/group"
GROUP_TESTS = "tests/unit/quorate/consumer/test_groups.py"
CANCELLATION = "tests/unit/quorate/consumer/group/test_cancellation.py"
MEMBERSHIP = "tests/unit/quorate/consumer/group/test_membership.py"
NEW_PARTITIONS = "tests/unit/quorate/consumer/test_new_partitions.py"
GROWTH = "quorum/quorate_quorum/controller/decisions/growth.py"
PLACEMENT = "quorum/quorate_quorum/controller/decisions/placement.py"
PLACEMENT_TESTS = "tests/unit/quorate_quorum/controller/test_placement.py"
REBALANCE_PLAN = "clients/quorate_cli/rebalance_plan.py"
REBALANCE_TESTS = "tests/unit/quorate_cli/test_rebalance_plan.py"
SAVED_PLAN = "clients/quorate_cli/saved_plan.py"
SAVED_PLAN_TESTS = "tests/unit/quorate_cli/test_cluster_rebalance.py"
LOSSY_ELECTIONS = "quorum/quorate_quorum/controller/decisions/lossy_elections.py"
LOSSY_ELECTION_TESTS = "tests/unit/quorate_quorum/controller/test_lossy_elections.py"
UNSWEPT_MOVES = "tests/unit/quorate_quorum/controller/test_unswept_moves.py"
DRAIN_TESTS = "tests/unit/quorate_quorum/controller/test_drain.py"
REACH = "quorum/quorate_quorum/controller/decisions/reach.py"
LIVENESS = "quorum/quorate_quorum/controller/decisions/liveness.py"
LIVENESS_TESTS = "tests/unit/quorate_quorum/controller/test_liveness.py"
DRAINS = "quorum/quorate_quorum/controller/decisions/drain.py"
SPREAD_TESTS = "tests/unit/quorate_quorum/controller/test_spread.py"
GROWTH_TESTS = "tests/unit/quorate_quorum/controller/test_growth.py"
WALKS = "tests/unit/quorate/record/test_walks.py"
CHECKS = "tests/unit/quorate_broker/replica/test_checks.py"
RECOMPRESSION = "tests/unit/quorate_broker/replica/test_recompression.py"
KAFKA = "broker/quorate_broker/listeners/kafka"
MESSAGES = "tests/unit/quorate_broker/listeners/kafka/test_messages.py"
HOSTILE_MESSAGES = "tests/unit/quorate_broker/listeners/kafka/test_hostile_messages.py"
KAFKA_TESTS = "tests/unit/quorate_broker/listeners/kafka"
CODECS = "clients/quorate/record/codecs"
CODEC_TESTS = "tests/unit/quorate/record/codecs"
PAPER = "tests/unit/quorate_quorum/raft/machine/test_paper.py"
ELECTIONS = "tests/unit/quorate_quorum/raft/machine/test_elections.py"
LEADER_RULES = "tests/unit/quorate_quorum/raft/machine/test_leader.py"
FOLLOWER_RULES = "tests/unit/quorate_quorum/raft/machine/test_follower.py"
SUCCESSION = "tests/unit/quorate_quorum/raft/machine/test_succession.py"
FORGOTTEN_DISKS = "tests/unit/quorate_quorum/raft/machine/test_forgotten_disks.py"
STATE_RULES = "tests/unit/quorate_quorum/raft/machine/test_state.py"
DISK = "tests/unit/quorate_quorum/raft/driver/test_storage.py"
SNAPSHOTS = "tests/unit/quorate_quorum/raft/driver/test_snapshots.py"
SNAPSHOT_RULES = "tests/unit/quorate_quorum/raft/machine/test_snapshot_rules.py"
INSTALLS = "tests/unit/quorate_quorum/raft/driver/test_installs.py"
INSTALL_CRASHES = "tests/simulation/test_quorum_install_crashes.py"
EPOCHS = "tests/unit/quorate_quorum/raft/machine/test_epochs_met.py"
RECOVER = "tests/unit/quorate_quorum/recover/test_recover.py"
GENERATIONS = "tests/unit/quorate_quorum/client/test_generations.py"
NODE = "quorum/quorate_quorum/raft/driver/node.py"
SERVER = "tests/unit/quorate_quorum/test_server.py"
CHANGES = "tests/unit/quorate_quorum/raft/machine/test_voter_changes.py"
SCHEDULES = "tests/unit/quorate_quorum/raft/machine/test_voter_schedules.py"
FINDING_THE_LEADER = "tests/unit/quorate_quorum/raft/machine/test_finding_the_leader.py"
REMOVED_VOTERS = "tests/unit/quorate_quorum/raft/machine/test_changes_of_voters.py"
VOTERS_BEHIND = "tests/unit/quorate_quorum/raft/machine/test_behind.py"
LOG_EPOCHS = "tests/unit/quorate_quorum/test_metadata_log.py"
FILES = "quorum/quorate_quorum/disk.py"
LOG_ROOM = "quorum/quorate_quorum/log"
STREAM_CREDIT = "broker/quorate_broker/replication/stream_credit.py"
CATCH_UP_WINDOW = "broker/quorate_broker/replication/catch_up_window.py"
FOLLOWER_POSITIONS = "broker/quorate_broker/replication/follower_positions.py"
CREDIT = "tests/unit/quorate_broker/replication/test_stream_credit.py"
WINDOW_TESTS = "tests/unit/quorate_broker/replication/test_catch_up_window.py"
LATE_CHUNKS = "tests/unit/quorate_broker/replication/test_late_chunks.py"
REPLICA_SERVICE = "broker/quorate_broker/replication/service.py"
HELD_BYTES = "broker/quorate_broker/replication/held_bytes.py"
HELD_BYTES_TESTS = "tests/unit/quorate_broker/replication/test_held_bytes.py"
SLOW_FOLLOWERS = "tests/simulation/test_slow_followers.py"
ISR_KEEPER = "tests/unit/quorate_broker/replication/test_isr_keeper.py"
RECOVERY_POINT = "tests/unit/quorate_quorum/log/test_recovery_point.py"
SHARED_SYNCS = "tests/unit/quorate_quorum/log/test_shared_syncs.py"
SEGMENT = "tests/unit/quorate_quorum/log/test_segment.py"
REPLACEMENT = "tests/unit/quorate_quorum/log/test_replacement.py"
GAPS = "tests/unit/quorate_quorum/log/test_gaps.py"
VERIFIER = "quorum/quorate_quorum/log/verifier.py"
SCAN = "quorum/quorate_quorum/log/scan.py"
FULL_DISK = "tests/unit/quorate_broker/replica/test_full_disk.py"
LOG_READER = "tests/unit/quorate_quorum/log/test_reader.py"
CORRUPTION = "clients/quorate/consumer/corruption.py"
CONSUMER_TESTS = "tests/unit/quorate/consumer/test_consumer.py"
AFTER_A_RISE = (
    "test_after_the_delay_has_risen_for_good_catching_up_is_as_fast_as_if_it_was_always_so"
)
CORRUPT_FOR_A_WHILE = "test_a_batch_that_is_corrupt_for_a_while_is_fetched_again_and_raises_nothing"
DESCRIPTORS = "tests/unit/quorate_quorum/log/test_descriptors.py"
SCRUB = "quorum/quorate_quorum/log/scrub.py"
SCRUBS = "tests/unit/quorate_quorum/log/test_scrub.py"
VERIFICATION = "tests/unit/quorate_quorum/log/test_verifier.py"
GROUPS = "broker/quorate_broker/groups"
SHARD = "tests/unit/quorate_broker/groups/test_shard.py"
COMPACTION = "broker/quorate_broker/compaction"
COMPACTION_TESTS = "tests/unit/quorate_broker/compaction"
REAL_DISK = "quorum/quorate_quorum/log/real_disk.py"
PROGRESS = "quorum/quorate_quorum/raft/machine/progress.py"
TIMING = "quorum/quorate_quorum/raft/machine/timing.py"
REACHED_OFFSET = "clients/quorate/aio/reached_offset.py"
CLOCKS = "tests/unit/quorate_quorum/raft/driver/test_clocks.py"
TRANSFER = "tests/unit/quorate_quorum/raft/machine/test_transfer.py"
PRE_VOTES = "tests/unit/quorate_quorum/raft/machine/test_pre_votes.py"
NETWORKS = "tests/simulation/test_quorum_networks.py"
DAMAGE = "tests/simulation/test_quorum_damage.py"
REJOIN = "tests/simulation/test_quorum_rejoin.py"
LEADER_REPLICA = "broker/quorate_broker/replica/leader_replica.py"
READER_PAST = "tests/unit/quorate_broker/replica/test_reader_past.py"
START = "tests/unit/quorate_quorum/log/test_start.py"
TIME_LOOKUP = "tests/unit/quorate_quorum/log/test_time_lookup.py"
REPAIR = "tests/unit/quorate_cli/inspect/test_repair.py"
POWER_CUTS = "tests/simulation/test_cluster_power_cuts.py"
FLUSH = "tests/unit/quorate_broker/replica/test_flush.py"
CONSUMER = "clients/quorate/consumer/consumer.py"
CONSUMER_STATE = "clients/quorate/consumer/partition_state.py"
SUBSCRIPTION = "clients/quorate/consumer/subscription.py"
BUFFER = "clients/quorate/consumer/buffer.py"
FETCH_STREAM = "clients/quorate/consumer/fetch_stream.py"
CONSUMER_POSITIONS = "tests/unit/quorate/consumer/test_positions.py"
CONSUMER_FAULTS = "tests/unit/quorate/consumer/test_faults.py"
CONSUMER_BUFFER = "tests/unit/quorate/consumer/test_buffer.py"
ACCUMULATOR = "clients/quorate/producer/accumulator.py"
PRODUCER = "clients/quorate/producer/producer.py"
PRODUCER_TESTS = "tests/unit/quorate/producer/test_producer.py"
PRODUCER_WAITS = "tests/unit/quorate/producer/test_waits.py"
PRODUCER_CANCELLATION = "tests/unit/quorate/producer/test_cancellation.py"
CONSUMER_CANCELLATION = "tests/unit/quorate/consumer/test_cancellation.py"
ACCUMULATOR_TESTS = "tests/unit/quorate/producer/test_accumulator.py"
PREFETCH = "tests/unit/quorate/consumer/test_prefetch.py"
INBOX = "clients/quorate/sync/inbox.py"
INBOX_TESTS = "tests/unit/quorate/sync/test_inbox.py"
SYNC_CLIENT_TESTS = "tests/unit/quorate/sync/test_clients.py"
OWNER_TESTS = "tests/unit/quorate/aio/test_owner.py"
PUBLIC_SURFACE = "tests/unit/quorate/test_public_surface.py"
REQUEST_BYTES = "tests/unit/quorate/net/test_request_bytes.py"
ACCUMULATIONS = "tests/unit/quorate/producer/test_accumulator.py"
TOPICS = "tests/unit/quorate/producer/test_topics.py"
RIGHTS = "tests/unit/quorate_broker/operations/test_authorization.py"
AUTHORIZER = "quorum/quorate_quorum/node/authorizer.py"
CONTROLLER_SERVICE = "quorum/quorate_quorum/controller/driver/service.py"

RECONCILER = "broker/quorate_broker/replicas/reconciler.py"
OPENER = "broker/quorate_broker/replicas/opener.py"
REPAIRS = "broker/quorate_broker/replicas/repairs.py"
LOSSY_CLUSTER = "tests/simulation/test_cluster_damage.py"
CONTROLLER_LOSSY = "tests/unit/quorate_quorum/controller/test_lossy_replicas.py"
SERVED_BY_FOLLOWERS = "broker/quorate_broker/replica/follower_reads.py"
FOLLOWER_READS = "tests/unit/quorate_broker/replica/test_follower_reads.py"
READ_REPLICAS = "broker/quorate_broker/operations/read_replicas.py"
READ_REPLICA_TESTS = "tests/unit/quorate_broker/operations/test_read_replicas.py"
READ_REPLICAS_SIM = "tests/simulation/test_read_replicas.py"
REQUESTED = "tests/unit/quorate_quorum/controller/test_requested_elections.py"
LOG_START = "tests/unit/quorate_quorum/log/test_start.py"
RETENTION = "tests/unit/quorate_broker/retention/test_policy.py"
FOLLOWED_START = "tests/unit/quorate_broker/replica/test_log_start.py"
LOG_CHAIN = "tests/unit/quorate_quorum/log/test_chain.py"
LOG_DAMAGE = "tests/unit/quorate_quorum/log/test_damage.py"
REPAIRED = "tests/unit/quorate_broker/replicas/test_repairs.py"
DAMAGED = "tests/unit/quorate_broker/replica/test_damage.py"

REASSIGNMENT = "quorum/quorate_quorum/controller/decisions/reassignment.py"
REASSIGNMENT_TESTS = "tests/unit/quorate_quorum/controller/test_reassignment.py"
STRAYS = "tests/unit/quorate_broker/files/test_strays.py"
CLUSTER_DISKS = "tests/simulation/test_cluster_disks.py"

PRODUCERS = "broker/quorate_broker/replica/producers.py"
PRODUCER_MEMORY = "tests/unit/quorate_broker/replica/test_producer_memory.py"

GROUP_MACHINE = "broker/quorate_broker/groups/machine"
GROUP_RULES = "tests/unit/quorate_broker/groups/machine"
MACHINE_MEMBERSHIP = f"{GROUP_RULES}/test_membership.py"
STATIC_MEMBERS = f"{GROUP_RULES}/test_static_members.py"
COMMITTED_OFFSETS = f"{GROUP_RULES}/test_offsets.py"
GROUP_FAILOVER = f"{GROUP_RULES}/test_failover.py"
PATTERNS = f"{GROUP_RULES}/test_patterns.py"
CLIENT_ASSIGNOR = f"{GROUP_RULES}/test_client_assignor.py"
MIXED_GROUPS = f"{GROUP_RULES}/test_mixed_groups.py"
POLLED_MEMBERS = f"{GROUP_RULES}/test_polled_members.py"
CLASSIC_ROUNDS = "tests/unit/quorate_broker/groups/machine/classic/test_rounds.py"
GROUP_RECORDS = "tests/unit/quorate_broker/groups/records/test_records.py"
ASSIGNORS = "tests/unit/quorate_broker/groups/assignors/test_assignors.py"


CATALOG = "clients/quorate/schema_registry/catalog.py"
CATALOG_TESTS = "tests/unit/quorate/schema_registry/test_catalog.py"
SCHEMA_TOPIC_TESTS = "tests/unit/quorate/schema_registry/test_topic.py"


MUTANTS = (
    *REPLICATION,
    Mutant(
        "room-to-delete",
        "the place for the start of a log is made when it is needed",
        f"{LOG_ROOM}/appender.py",
        "reserve_synced()\n            await self._parts.checkpoints.reserve_start()",
        "reserve_synced()",
        (
            "tests/unit/quorate_quorum/log/test_disk_errors.py::test_a_log_of_one_segment_gives_its_bytes_back_on_a_full_disk",
        ),
    ),
    Mutant(
        "room-to-delete",
        "retention waits for the room of a new segment before it deletes old ones",
        "broker/quorate_broker/retention/keeper.py",
        "            await self._roll(partition)",
        "            await log.log.roll_if_due()",
        (
            "tests/unit/quorate_broker/retention/test_keeper.py::test_a_disk_without_room_for_a_new_segment_still_gives_old_ones_back",
        ),
    ),
    Mutant(
        "failed-directory",
        "a failed directory takes all replicas of its broker offline",
        "broker/quorate_broker/replicas/replicas.py",
        "            if partition.directory_id == directory_id:",
        "            if True:",
        (f"{CLUSTER_DISKS}::test_a_failed_directory_takes_only_its_own_replicas_offline",),
    ),
    Mutant(
        "failed-directory",
        "replicas on a failed directory stay in the ISR and lead on",
        "quorum/quorate_quorum/controller/decisions/partitions.py",
        "online = not broker.fenced and directory is not None and not directory.failed",
        "online = not broker.fenced and directory is not None",
        (f"{CLUSTER_DISKS}::test_a_failed_directory_takes_only_its_own_replicas_offline",),
    ),
    Mutant(
        "failed-directory",
        "a directory that was unmounted is used on",
        "broker/quorate_broker/files/directories.py",
        'reason = "" if is_there else f"it has no',
        'reason = "" if True else f"it has no',
        (
            f"{CLUSTER_DISKS}::test_a_directory_that_was_unmounted_is_given_up_although_nothing_fails",
        ),
    ),
    Mutant(
        "failed-directory",
        "a trim waits for a replica on a failed directory",
        "broker/quorate_broker/operations/delete_records.py",
        "if state is not None and image.is_live(state, one)]",
        "if state is not None and not image.brokers[one].fenced]",
        (
            "tests/unit/quorate_broker/operations/test_delete_records.py::test_a_replica_on_a_failed_directory_is_not_waited_for",
        ),
    ),
    Mutant(
        "copies-are-kept",
        "a copy in another directory is removed as any stray is",
        "broker/quorate_broker/files/strays.py",
        "                if is_needed(stray.key):",
        "                if False:",
        (
            f"{STRAYS}::test_a_copy_stays_until_the_placed_replica_is_in_sync",
            f"{CLUSTER_DISKS}::test_the_only_replica_whose_directory_was_moved_by_hand_is_not_lost",
        ),
    ),
    Mutant(
        "copies-are-kept",
        "an empty log stands for election although a copy may have its records",
        "broker/quorate_broker/replicas/replicas.py",
        "if copy is not None and found.log.log_end_offset == 0:",
        "if False:",
        (f"{CLUSTER_DISKS}::test_the_only_replica_whose_directory_was_moved_by_hand_is_not_lost",),
    ),
    Mutant(
        "idempotence",
        "a producer is forgotten for the number of others, however lately it was heard",
        PRODUCERS,
        "(KEPT_MS if is_wanted else",
        "(-1 if is_wanted else",
        (
            f"{PRODUCER_MEMORY}::test_a_producer_is_forgotten_by_time_and_never_by_the_number_of_others",
        ),
    ),
    Mutant(
        "idempotence",
        "whom a partition has forgotten it takes for new, whatever was sent before",
        PRODUCERS,
        "if in_doubt_ms and not self._producers.remembers(in_doubt_ms):",
        "if False:",
        (
            f"{PRODUCER_MEMORY}::test_sequence_0_of_a_forgotten_producer_is_not_new_if_it_may_have_been_written",
            f"{PRODUCER_MEMORY}::test_nothing_is_written_twice_whatever_is_forgotten",
        ),
    ),
    Mutant(
        "idempotence",
        "a replica that lacks the beginning of the log takes its memory for whole",
        PRODUCERS,
        "NEVER if offset == 0 else self.now_ms",
        "NEVER",
        (
            f"{PRODUCER_MEMORY}::test_a_replica_that_lacks_the_beginning_of_the_log_does_not_know_who_wrote_there",
        ),
    ),
    Mutant(
        "idempotence",
        "a new producer is taken though there is no memory for it",
        PRODUCERS,
        "        while not self.has_room(more):",
        "        while False:",
        (
            f"{PRODUCER_MEMORY}::test_at_the_bound_in_bytes_a_new_producer_is_refused_and_an_old_one_goes_on",
        ),
    ),
    Mutant(
        "idempotence",
        "producers are forgotten while their broker stood still, before it reads what they sent",
        "broker/quorate_broker/replica/producer_memory.py",
        "min(loop_ms - self._told_ms, 2 * TICK_MS)",
        "loop_ms - self._told_ms",
        (
            f"{PRODUCER_MEMORY}::test_the_time_is_that_of_the_broker_at_work_not_of_records_or_of_a_paused_process",
        ),
    ),
    Mutant(
        "idempotence",
        "a producer that is not known counts as proof that its batch was not written",
        "clients/quorate/producer/partition_queue.py",
        "            waiting.is_uncertain &= self.is_forgotten",
        "            waiting.is_uncertain = False",
        (
            f"{ACCUMULATIONS}::test_an_unknown_producer_is_no_proof_for_what_an_earlier_attempt_may_have_written",
            f"{ACCUMULATIONS}::test_nothing_doubled_when_brokers_forget_the_producer_under_a_retry",
        ),
    ),
    Mutant(
        "idempotence",
        "a producer does not say that its batch may have been written before",
        "clients/quorate/producer/produce_stream.py",
        "    if not batch.is_uncertain:\n        return 0\n",
        "    if True:\n        return 0\n",
        (f"{ACCUMULATIONS}::test_nothing_doubled_when_brokers_forget_the_producer_under_a_retry",),
    ),
    Mutant(
        "vote-durable",
        "a vote is spoken before it is on disk",
        STATE,
        "if not self.is_saved:\n            return\n",
        "if False:\n            return\n",
        (f"{PAPER}::test_a_vote_is_on_disk_before_it_is_spoken",),
    ),
    Mutant(
        "one-vote",
        "the vote is forgotten within its epoch",
        ROLE,
        "return state.hard_state.voted_for == request.candidate and self.leader == NOBODY",
        "return self.leader == NOBODY",
        (f"{PAPER}::test_each_voter_votes_once_in_an_epoch_first_come_first_served",),
    ),
    Mutant(
        "one-reign",
        "leads again in the same epoch after a restart",
        RAFT,
        "if state.hard_state.voted_for == state.me:",
        "if False:",
        (f"{ELECTIONS}::test_who_stood_in_an_epoch_starts_resigned_in_it_and_never_leads_in_it",),
    ),
    Mutant(
        "synced-counts",
        "a leader counts what it has not synced",
        PROGRESS_OF_REPLICAS,
        "me, synced_end = self._state.me, self._state.ledger.synced_end",
        "me, synced_end = self._state.me, self._state.ledger.log_end_offset",
        (f"{LEADER_RULES}::test_what_is_not_synced_does_not_count_though_it_is_served",),
    ),
    Mutant(
        "synced-counts",
        "a follower acknowledges what it has not synced",
        FOLLOWER,
        "            ledger.synced_end,\n            ledger.epoch_before(ledger.synced_end),",
        "            ledger.log_end_offset,\n"
        "            ledger.epoch_before(ledger.log_end_offset),",
        (f"{FOLLOWER_RULES}::test_a_slow_sync_makes_the_follower_repeat_its_last_synced_offset",),
    ),
    Mutant(
        "cut-stays-cut",
        "epochs of a truncated tail stay",
        LEDGER,
        "while self._epochs and self._epochs[-1][1] >= end_offset:",
        "while False:",
        (f"{PAPER}::test_logs_that_parted_for_several_epochs_come_together_in_several_rounds",),
    ),
    Mutant(
        "known-formats",
        "a state file of another version is read",
        QUORUM_STATE,
        "if data[:1] != bytes([VERSION]):",
        "if False:",
        (f"{DISK}::test_a_quorum_state_of_a_newer_version_is_refused_though_its_checksum_fits",),
    ),
    Mutant(
        "damage-is-no-tail",
        "a damaged state file is read",
        QUORUM_STATE,
        "if crc32c(body) != crc:",
        "if False:",
        (f"{DISK}::test_a_quorum_state_of_another_version_or_with_any_bit_flipped_is_refused",),
    ),
    Mutant(
        "damage-is-no-tail",
        "a flipped bit in a batch's epoch is believed at start",
        CHAIN,
        "        if reason is not None:\n",
        "        if False:\n",
        (f"{LOG_EPOCHS}::test_any_bit_of_a_synced_batchs_epoch_that_flips_is_corruption",),
    ),
    Mutant(
        "damage-is-no-tail",
        "a batch's epoch is believed as a peer sends it",
        FOLLOWER,
        "if misfit(batch.epoch, batch.epoch_start, epoch) is not None:",
        "if batch.epoch < epoch:",
        (
            f"{LOG_EPOCHS}::test_a_follower_believes_offsets_and_epochs_only_if_they_follow_on_its_log",
        ),
    ),
    Mutant(
        "vote-durable",
        "a state file older than the log is believed",
        QUORUM_STATE,
        "if ledger.last_epoch > known:",
        "if False:",
        (f"{LOG_EPOCHS}::test_a_voter_whose_state_is_older_than_its_log_does_not_start",),
    ),
    Mutant(
        "own-epoch-commits",
        "records of older epochs are committed by counting",
        LEADER,
        "if end <= self.epoch_start_offset or end <= state.ledger.high_watermark:",
        "if end <= state.ledger.high_watermark:",
        (f"{PAPER}::test_a_new_leader_commits_nothing_until_a_record_of_its_own_epoch",),
    ),
    Mutant(
        "own-epoch-commits",
        "the check of the own epoch is off by one",
        LEADER,
        "if end <= self.epoch_start_offset or",
        "if end < self.epoch_start_offset or",
        (f"{PAPER}::test_a_new_leader_commits_nothing_until_a_record_of_its_own_epoch",),
    ),
    Mutant(
        "high-watermark-grows",
        "the high watermark goes back",
        STATE,
        "self.ledger.high_watermark = max(self.ledger.high_watermark, offset)",
        "self.ledger.high_watermark = offset",
        (f"{PAPER}::test_the_high_watermark_never_goes_back",),
    ),
    Mutant(
        "matching-past",
        "a diverging fetch moves progress",
        LEADER,
        "            self._answer_fetch(fetch, other_past)\n            return",
        "            progress.record(request, state.ledger.log_end_offset, state.now_ms)\n"
        "            self._answer_fetch(fetch, other_past)\n            return",
        (f"{LEADER_RULES}::test_a_diverging_fetch_moves_no_progress",),
    ),
    Mutant(
        "matching-past",
        "an older stream moves progress",
        LEADER,
        "if not progress.admits(stream):",
        "if False:",
        (f"{LEADER_RULES}::test_a_request_of_an_older_stream_moves_no_state",),
    ),
    Mutant(
        "own-answers",
        "an answer to another offset is taken",
        FOLLOWER,
        "if response.base_offset == state.ledger.log_end_offset:",
        "if True:",
        (f"{FOLLOWER_RULES}::test_an_answer_to_a_fetch_from_another_offset_is_not_taken",),
    ),
    Mutant(
        "no-cut-below",
        "a cut below the high watermark",
        FOLLOWER,
        "        if end < ledger.high_watermark:",
        "        if False:",
        (f"{FOLLOWER_RULES}::test_a_cut_below_the_high_watermark_stops_the_node",),
    ),
    Mutant(
        "majority",
        "half of the voters are a majority",
        VOTERS,
        "return voters // 2 + 1",
        "return (voters + 1) // 2",
        (f"{PAPER}::test_a_candidate_wins_with_a_majority_of_the_whole_cluster",),
    ),
    Mutant(
        "majority",
        "half of the voters commit",
        VOTERS,
        "return descending[len(descending) // 2]",
        "return descending[(len(descending) - 1) // 2]",
        (f"{LEADER_RULES}::test_what_is_not_synced_does_not_count_though_it_is_served",),
    ),
    Mutant(
        "up-to-date",
        "a shorter log of the same epoch is up to date",
        LEDGER,
        "return (last_epoch, log_end_offset) >= (self.last_epoch, self.log_end_offset)",
        "return last_epoch >= self.last_epoch",
        (f"{PAPER}::test_a_vote_goes_only_to_a_log_that_is_at_least_as_up_to_date",),
    ),
    Mutant(
        "up-to-date",
        "epoch and length are both compared",
        LEDGER,
        "return (last_epoch, log_end_offset) >= (self.last_epoch, self.log_end_offset)",
        "return last_epoch >= self.last_epoch and log_end_offset >= self.log_end_offset",
        (f"{PAPER}::test_a_vote_goes_only_to_a_log_that_is_at_least_as_up_to_date",),
    ),
    Mutant(
        "completions-of-now",
        "a sync from before a cut is credited",
        STATE,
        "if event.truncations != ledger.truncations or event.epoch != self.epoch:",
        "if False:",
        (
            f"{STATE_RULES}::test_a_completion_from_before_a_cut_is_not_credited_to_what_replaced_it",
        ),
    ),
    Mutant(
        "check-quorum",
        "no check of the quorum",
        LEADER,
        "if state.now_ms >= self.rounds.heard_ms + state.timing.check_quorum_ms:",
        "if False:",
        (
            f"{LEADER_RULES}::test_a_leader_that_no_majority_echoes_resigns_after_one_and_a_half_fetch_timeouts",
        ),
    ),
    Mutant(
        "pre-vote",
        "a follower grants pre-votes while it hears its leader",
        FOLLOWER,
        "return self.state.now_ms < self.fresh_until_ms",
        "return False",
        ("tests/unit/quorate_quorum/raft/machine/test_pre_votes.py",),
    ),
    Mutant(
        "pre-vote",
        "a leader grants pre-votes",
        LEADER,
        "    def hears_a_leader(self) -> bool:\n        return True",
        "    def hears_a_leader(self) -> bool:\n        return False",
        (f"{ELECTIONS}::test_a_leader_denies_pre_votes_to_the_most_complete_of_logs",),
    ),
    Mutant(
        "pre-vote",
        "answers to earlier attempts are counted",
        CANDIDATE,
        "if event.attempt != self.attempt or",
        "if",
        (f"{ELECTIONS}::test_an_answer_to_an_earlier_attempt_is_not_counted",),
    ),
    Mutant(
        "no-disruption",
        "it stands without having asked",
        ROLE,
        "if state.is_sole_voter() or is_transfer:",
        "if True:",
        (f"{ELECTIONS}::test_an_isolated_voter_does_not_raise_its_epoch_and_disturbs_nobody",),
    ),
    Mutant(
        "own-chance",
        "one seed, one timeout",
        STATE,
        "+ self.me.id * _SPREAD)",
        ")",
        (f"{ELECTIONS}::test_two_voters_with_one_seed_wait_differently",),
    ),
    Mutant(
        "transfer",
        "the first successor waits as the others do",
        ROLE,
        "if self._successors(request)[:1] != (self.state.me.id,):",
        "if True:",
        (f"{SUCCESSION}::test_the_first_successor_stands_at_once_and_the_others_wait",),
    ),
    Mutant(
        "reign-after-commit",
        "a reign is told before its own record is committed",
        LEADER,
        "return self.state.ledger.high_watermark > self.epoch_start_offset",
        "return True",
        (f"{PAPER}::test_nobody_is_told_of_a_high_watermark_that_is_not_of_this_epoch",),
    ),
    Mutant(
        "disk-identity",
        "directories do not tell voters of one id apart",
        ROLE,
        "request.voter == state.me and",
        "request.voter.id == state.me.id and",
        (f"{ELECTIONS}::test_votes_that_are_refused_by_everybody",),
    ),
    Mutant(
        "disk-identity",
        "a disk that forgot gives votes",
        ROLE,
        "        if self._may_have_forgotten(request):\n",
        "        if False:\n",
        (f"{FORGOTTEN_DISKS}::test_a_voter_that_holds_only_the_bootstrap_batch_elects_no_history",),
    ),
    Mutant(
        "voters-in-the-log",
        "a voter set that was cut off stays",
        LEDGER,
        "while self._voters and self._voters[-1][0] >= end_offset:",
        "while False:",
        (f"{FOLLOWER_RULES}::test_a_voter_set_that_is_cut_off_is_taken_back",),
    ),
    Mutant(
        "voters-in-the-log",
        "a snapshot gets the voters of now, not of its offset",
        LEDGER,
        "if base < offset), VoterSet())",
        "if True), VoterSet())",
        (
            f"{SNAPSHOT_RULES}::test_what_is_cut_takes_epochs_and_voters_with_it_but_not_the_last_of_each",
        ),
    ),
    Mutant(
        "cut-stays-cut",
        "the old log stays below an installed snapshot",
        STATE,
        "self.outbox.truncate_to, self.outbox.begin_at = None, below.offset",
        "self.outbox.truncate_to = None",
        (
            f"{SNAPSHOT_RULES}::test_what_is_installed_moves_every_end_at_once_and_the_log_begins_anew",
        ),
    ),
    Mutant(
        "install-moves-all",
        "a log that does not reach up to the snapshot is left as it is",
        STORAGE,
        "if below is not None and not _reaches(log, below):",
        "if False:",
        (f"{SNAPSHOTS}::test_a_log_that_ends_below_the_snapshot_begins_anew_at_it",),
    ),
    Mutant(
        "install-moves-all",
        "an install moves the high watermark and not what is synced",
        LEDGER,
        "self.high_watermark = self.written_end = self.synced_end = below.offset",
        "self.high_watermark = self.written_end = below.offset",
        (
            f"{SNAPSHOT_RULES}::test_what_is_installed_moves_every_end_at_once_and_the_log_begins_anew",
        ),
    ),
    Mutant(
        "completions-of-now",
        "a sync of the old log is credited to the one that begins at a snapshot",
        LEDGER,
        "self.bootstrap_end = 0\n        self.truncations += 1",
        "self.bootstrap_end = 0",
        (f"{SNAPSHOT_RULES}::test_completions_from_before_an_install_say_nothing_after_it",),
    ),
    Mutant(
        "snapshot-at-start",
        "who stands exactly at the log's start is sent the snapshot again",
        LEADER,
        "(request.fetch_offset < start or epoch < 0)",
        "(request.fetch_offset <= start or epoch < 0)",
        (
            f"{SNAPSHOT_RULES}::test_a_leader_whose_log_is_cut_answers_by_batches_divergence_or_snapshot",
        ),
    ),
    Mutant(
        "snapshot-at-start",
        "the epoch before the log's start is forgotten when the log is cut",
        LEDGER,
        "self._epochs = [(epoch, log_start - 1), *(",
        "self._epochs = [*(",
        (
            f"{SNAPSHOT_RULES}::test_a_leader_whose_log_is_cut_answers_by_batches_divergence_or_snapshot",
        ),
    ),
    Mutant(
        "snapshot-at-start",
        "the log is cut above the snapshot",
        TAKING,
        "start = self._log.segment_base(offset)",
        "start = self._log.log_end_offset",
        (f"{INSTALLS}::test_a_snapshot_taken_while_writes_go_on_cuts_nothing_above_it",),
    ),
    Mutant(
        "snapshot-at-start",
        "the log is cut before the snapshot is written",
        TAKING,
        "            await self._close_segment()\n",
        "            await self._close_segment()\n"
        "            await self._log.move_start(snapshot.offset)\n"
        "            await self._log.remove_below_start()\n",
        (f"{INSTALL_CRASHES}::test_a_voter_dies_at_each_operation_of_taking_a_snapshot",),
    ),
    Mutant(
        "downloads-in-order",
        "a download that is not waited for any more is installed",
        FOLLOWER,
        "if self.install is not None and self.install.snapshot == event.below.id:",
        "if True:",
        (
            f"{SNAPSHOT_RULES}::test_a_download_that_is_done_too_late_drops_nothing_that_was_acknowledged",
        ),
    ),
    Mutant(
        "downloads-in-order",
        "a snapshot at or below the high watermark is taken up",
        FOLLOWER,
        "follows = snapshot.offset > ledger.high_watermark",
        "follows = True",
        (f"{SNAPSHOT_RULES}::test_a_snapshot_that_no_honest_leader_names_is_not_taken_up",),
    ),
    Mutant(
        "downloads-in-order",
        "a newer snapshot does not replace the download of an older one",
        FOLLOWER,
        "if self.install is None or self.install.snapshot < snapshot:",
        "if self.install is None:",
        (
            f"{SNAPSHOT_RULES}::test_a_newer_snapshot_of_the_leader_replaces_the_download_and_an_older_one_does_not",
        ),
    ),
    Mutant(
        "downloads-in-order",
        "a chunk says how large it is, not how large the whole",
        SNAPSHOTS_OF_A_VOTER,
        "return file.size, data",
        "return len(data), data",
        (f"{INSTALLS}::test_a_voter_long_away_installs_while_writes_go_on",),
    ),
    Mutant(
        "snapshot-below",
        "who parted from us below our log is told to cut there",
        LEADER,
        "(request.fetch_offset < start or epoch < 0)",
        "request.fetch_offset < start",
        (
            f"{SNAPSHOT_RULES}::test_a_leader_whose_log_is_cut_answers_by_batches_divergence_or_snapshot",
        ),
    ),
    Mutant(
        "snapshot-below",
        "who is below our log is given it from where it begins",
        LEADER,
        "if ledger.snapshot is not None and start > 0 and (",
        "if False and (",
        (
            f"{SNAPSHOT_RULES}::test_a_leader_whose_log_is_cut_answers_by_batches_divergence_or_snapshot",
        ),
    ),
    Mutant(
        "unknown-candidates",
        "no vote for a candidate that we do not know",
        ROLE,
        "return replica in self.state.ledger.voters or not self.hears_a_leader()",
        "return replica in self.state.ledger.voters",
        (f"{ELECTIONS}::test_a_vote_for_a_candidate_outside_our_voter_set_is_possible",),
    ),
    Mutant(
        "reads-of-now",
        "a read before the own epoch's first commit",
        ROUNDS,
        "while may_confirm and self.reads",
        "while self.reads",
        (
            f"{PAPER}::test_a_read_waits_for_a_record_of_the_epoch_and_for_a_majority_that_heard_of_it",
        ),
    ),
    Mutant(
        "reads-of-now",
        "a read takes a round that was given already",
        ROUNDS,
        "        self._state.round += 1\n        read = ",
        "        read = ",
        (f"{LEADER_RULES}::test_a_read_id_is_never_given_twice_not_even_in_another_reign",),
    ),
    Mutant(
        "no-disruption",
        "who is no voter moves the epoch of those that hear a leader",
        ROLE,
        "return replica in self.state.ledger.voters or not self.hears_a_leader()",
        "return True",
        (
            f"{EPOCHS}::test_a_strangers_epoch_is_taken_only_if_it_stands_or_leads_and_we_hear_no_leader",
        ),
    ),
    Mutant(
        "no-disruption",
        "an observer's fetch deposes the leader",
        ROLE,
        "is_heeded = replica in state.ledger.voters and replica != state.me",
        "is_heeded = replica != state.me",
        (f"{EPOCHS}::test_a_refused_epoch_is_answered_invalid",),
    ),
    Mutant(
        "no-disruption",
        "one message uses up the epochs",
        STATE,
        "return is_heeded and self.epoch < epoch <= min(furthest, EPOCH_MAX)",
        "return is_heeded and self.epoch < epoch <= EPOCH_MAX",
        (f"{EPOCHS}::test_a_higher_epoch_of_a_member_is_taken_as_far_as_a_leap_goes",),
    ),
    Mutant(
        "one-reign",
        "a new history gives leader_epochs of the lost one again",
        RECOVERED,
        "leader_epoch = partition.leader_epoch + EPOCHS_PASSED",
        "leader_epoch = partition.leader_epoch + 1",
        (f"{RECOVER}::test_the_new_history_trusts_nobody_and_passes_over_every_number_given_away",),
    ),
    Mutant(
        "damage-is-no-tail",
        "a disk damaged below its last sync becomes the truth of the cluster",
        SURVIVOR,
        "if self._bad is not None and slot.value is not None",
        "if False and slot.value is not None",
        (f"{RECOVER}::test_a_torn_tail_is_passed_over_and_a_bad_byte_below_the_sync_refused",),
    ),
    Mutant(
        "disk-identity",
        "two survivors that recover to one generation take each other for their own",
        DECISION,
        "        + survivor.identity.directory_id\n",
        "",
        (f"{RECOVER}::test_two_survivors_of_one_generation_are_told_apart",),
    ),
    Mutant(
        "no-disruption",
        "a watcher of a history that is over goes on where it stood",
        WATCH,
        "if 0 < request.quorum_generation < self._generation:",
        "if False:",
        (f"{GENERATIONS}::test_a_watcher_of_an_older_generation_is_told_to_begin_anew",),
    ),
    Mutant(
        "no-disruption",
        "who is no voter stands",
        ROLE,
        "if not state.may_stand() or state.hard_state.is_behind:",
        "if state.hard_state.is_behind:",
        (f"{FINDING_THE_LEADER}::test_a_new_disk_finds_each_leader_in_turn_and_never_stands",),
    ),
    Mutant(
        "loud-failures",
        "work that fails does so in silence",
        RAFT_LOOP,
        '        self.fail(f"{name}: {type(error).__name__}: {error}", error)\n\n    # --- time',
        "        del name\n\n    # --- time",
        (
            "tests/unit/quorate_quorum/node/test_stalls.py::test_a_voter_whose_applying_fails_stops_and_says_so",
        ),
    ),
    Mutant(
        "batch-bound",
        "a batch above the limit is appended",
        NODE,
        "if len(batch.data) > self.config.quorum_batch_max_bytes:",
        "if len(batch.data) > self.config.quorum_batch_max_bytes + 1:",
        (
            "tests/simulation/test_quorum_rules.py::test_an_outcome_larger_than_the_bound_is_refused_and_one_at_it_is_committed",
        ),
    ),
    Mutant(
        "one-change",
        "a change while another waits for its commit",
        VOTER_CHANGE,
        "if not state.ledger.are_voters_committed:",
        "if False:",
        (f"{CHANGES}::test_no_change_before_the_one_before_is_committed",),
    ),
    Mutant(
        "voting-majority",
        "A node that gives no votes yet is made a voter",
        PROGRESS,
        "        if self.is_behind:\n",
        "        if False:\n",
        (f"{CHANGES}::test_a_node_that_gives_no_votes_yet_is_not_added",),
    ),
    Mutant(
        "one-change",
        "a change before a record of the own epoch is committed",
        LEADER,
        "if not self.has_committed_own():",
        "if False:",
        (
            f"{SCHEDULES}::test_two_leaders_with_a_change_each_never_both_commit",
            f"{CHANGES}::test_nothing_changes_before_a_record_of_the_leaders_own_epoch_is_committed",
        ),
    ),
    Mutant(
        "one-change",
        "two voters change at once",
        VOTER_CHANGE,
        "len(added) + len(gone) + len(moved) != 1:",
        "len(added) + len(gone) + len(moved) < 1:",
        (f"{CHANGES}::test_voters_change_one_at_a_time",),
    ),
    Mutant(
        "disk-identity",
        "a leader on another disk is taken for the one that we know",
        ROLE,
        "voter = self.state.ledger.voters.of_key(leader)",
        "voter = self.state.ledger.voters.by_id(leader.id)",
        (
            f"{FINDING_THE_LEADER}::test_a_hint_at_a_leader_that_we_do_not_know_makes_us_ask_who_gave_it",
        ),
    ),
    Mutant(
        "disk-identity",
        "a wiped disk counts in the place of the old one",
        "quorum/quorate_quorum/controller/decisions/voters.py",
        "if same.directory_id == voter.directory_id:",
        "if True:",
        (
            "tests/unit/quorate_quorum/controller/test_voters.py::test_the_same_id_on_another_disk_is_refused_and_told_what_to_do",
        ),
    ),
    Mutant(
        "voting-majority",
        "a change that leaves a majority heard, but behind and without a vote",
        VOTER_CHANGE,
        "replicas.of(voter.key).last_caught_up_ms",
        "replicas.of(voter.key).last_fetch_ms",
        (
            f"{CHANGES}::test_a_voter_that_is_heard_but_behind_is_not_made_the_one_that_a_majority_needs",
        ),
    ),
    Mutant(
        "voting-majority",
        "a change that leaves a majority silent",
        VOTER_CHANGE,
        "if len(voters.voters) - len(late) < voters.majority:",
        "if False:",
        (f"{CHANGES}::test_a_majority_of_the_voters_that_are_left_has_caught_up",),
    ),
    Mutant(
        "disk-identity",
        "a snapshot is fetched before it is on disk that the disk may have forgotten",
        STATE,
        "        if not self.is_saved:\n            install = None\n",
        "        if False:\n            install = None\n",
        (
            f"{SNAPSHOT_RULES}::test_nothing_is_downloaded_before_it_is_on_disk_that_the_disk_may_have_forgotten",
        ),
    ),
    Mutant(
        "removed-leader",
        "a leader whose removal is on its own disk alone does not stand",
        STATE,
        "return self.is_voter() or self.me in self.ledger.voters_before_change",
        "return self.is_voter()",
        (
            f"{REMOVED_VOTERS}::test_of_two_voters_the_removed_one_is_needed_until_its_removal_is_on_the_others_disk",
        ),
    ),
    Mutant(
        "removed-leader",
        "who is removed counts its own vote",
        CANDIDATE,
        "if sum(one in voters for one in self.granted) < voters.majority:",
        "if len(self.granted) < voters.majority:",
        (f"{REMOVED_VOTERS}::test_who_is_removed_does_not_count_itself_when_it_stands",),
    ),
    Mutant(
        "disk-identity",
        "a disk that may have forgotten runs after the high watermark for ever",
        FOLLOWER,
        "self.catch_up_to = self.catch_up_to or response.high_watermark",
        "self.catch_up_to = response.high_watermark",
        (
            f"{VOTERS_BEHIND}::test_a_voter_that_fell_behind_votes_again_though_the_high_watermark_runs_ahead_of_it",
        ),
    ),
    Mutant(
        "removed-leader",
        "a leader that removed itself leads on",
        LEADER,
        "is_removed = not state.is_voter() and state.ledger.are_voters_committed",
        "is_removed = False",
        (
            f"{CHANGES}::test_a_leader_that_removed_itself_does_not_count_itself_and_resigns_at_the_commit",
        ),
    ),
    Mutant(
        "removed-leader",
        "it resigns before its removal is committed",
        LEADER,
        "is_removed = not state.is_voter() and state.ledger.are_voters_committed",
        "is_removed = not state.is_voter()",
        (
            f"{CHANGES}::test_a_leader_that_removed_itself_does_not_count_itself_and_resigns_at_the_commit",
        ),
    ),
    Mutant(
        "failed-sync-is-final",
        "a sync that failed is tried again",
        f"{LOG_ROOM}/syncer.py",
        "            await segment.file.sync()\n        except OSError as error:\n",
        "            await segment.file.sync()\n        except OSError as error:\n"
        "            return await segment.file.sync()\n",
        (
            "tests/unit/quorate_quorum/log/test_recovery.py"
            "::test_after_a_failed_sync_nothing_is_acknowledged_until_it_is_written_again",
            "tests/unit/quorate_quorum/test_server.py::test_a_failed_sync_stops_the_voter_and_says_why",
        ),
    ),
    Mutant(
        "names-last",
        "a file is renamed before its bytes are synced",
        FILES,
        "        if sync:\n            await file.sync()\n",
        "        pass\n",
        (
            f"{DISK}::test_formatting_survives_a_power_loss_and_is_done_once",
            f"{DISK}::test_a_small_file_is_replaced_whole_or_not_at_all",
        ),
    ),
    Mutant(
        "names-last",
        "a name is not synced",
        FILES,
        "    if sync:\n        await disk.sync_directory",
        "    if False:\n        await disk.sync_directory",
        (f"{DISK}::test_a_small_file_is_replaced_whole_or_not_at_all",),
    ),
    Mutant(
        "names-last",
        "what a killed process renamed is believed before its name is synced",
        NODE,
        "        await disk.sync_directory(directory)\n",
        "        pass\n",
        (
            f"{SERVER}::test_a_vote_whose_name_was_not_synced_by_who_died_is_durable"
            "_once_the_next_one_runs",
        ),
    ),
    Mutant(
        "disk-errors",
        "a short write stays in the file",
        REAL_DISK,
        "            os.ftruncate(descriptor, position)",
        "            pass",
        (
            "tests/unit/quorate_testing/simulated/test_disk.py::test_a_short_write_leaves_the_file_as_it_was",
        ),
    ),
    Mutant(
        "damage-is-no-tail",
        "a power loss may forget how far the log is synced: damage counts as a tail",
        f"{LOG_ROOM}/checkpoints.py",
        "self.synced_slot.advance(end, self._extent.epoch_before(end), sync=durably)",
        "self.synced_slot.write(end, self._extent.epoch_before(end))",
        (
            "tests/unit/quorate_quorum/log/test_recovery.py::test_what_a_sync_has_told_is_never_taken_for_a_tail",
            "tests/simulation/test_quorum_damage.py"
            "::test_one_damaged_record_and_a_power_loss_of_all_lose_nothing_committed",
        ),
    ),
    Mutant(
        "damage-is-no-tail",
        "acknowledgements after a kill count on a synced end that only the page cache has",
        f"{LOG_ROOM}/recovery.py",
        "        elif self._checkpoints.synced_slot.value is not None:\n"
        "            await self._checkpoints.advance_synced(self._extent.end)\n",
        "",
        (
            "tests/unit/quorate_quorum/log/test_recovery.py"
            "::test_a_kill_in_the_sync_of_synced_leaves_it_to_be_made_sure_at_open",
        ),
    ),
    Mutant(
        "disk-errors",
        "the epoch of an append that found no room stays",
        f"{LOG_ROOM}/appender.py",
        "            extent.epochs.truncate_from_end(extent.end)\n            raise storage_error",
        "            raise storage_error",
        (
            "tests/unit/quorate_quorum/log/test_recovery.py::test_a_full_disk_fails_the_append_and_opens_again_while_still_full",
        ),
    ),
    Mutant(
        "cut-stays-cut",
        "a snapshot of what producers wrote before a cut is believed after it",
        f"{LOG_ROOM}/observed.py",
        "if offset > extent.start and epoch != extent.epoch_before(offset):",
        "if False:",
        (
            "tests/unit/quorate_quorum/log/test_observed.py::test_a_snapshot_of_a_history_that_was_cut_is_not_believed",
        ),
    ),
    Mutant(
        "cut-stays-cut",
        "a position that was found before a cut is kept for the next reader",
        f"{LOG_ROOM}/reader.py",
        "        if stop > start and truncations == self._extent.truncations:\n            # Only",
        "        if stop > start:\n            # Only",
        (
            "tests/unit/quorate_quorum/log/test_reader.py::test_a_read_that_a_cut_overtook_leaves_no_position_behind",
        ),
    ),
    Mutant(
        "disk-errors",
        "a file is closed for want of descriptors before what was written is synced",
        f"{LOG_ROOM}/descriptors.py",
        "victim = next((one for one in idle if one.is_synced), None)",
        "victim = idle[0]",
        (
            "tests/unit/quorate_quorum/log/test_descriptors.py::test_what_was_written_is_synced_before_its_file_is_closed",
            "tests/unit/quorate_quorum/log/test_descriptors.py::test_a_file_whose_sync_failed_when_it_was_closed_is_of_no_use",
        ),
    ),
    Mutant(
        "disk-errors",
        "a sync that failed for want of descriptors is forgotten",
        REAL_DISK,
        "        if self._sync_failure is not None:\n",
        "        if False:\n",
        (
            "tests/unit/quorate_quorum/log/test_descriptors.py::test_a_file_whose_sync_failed_when_it_was_closed_is_of_no_use",
        ),
    ),
    Mutant(
        "known-formats",
        "another file at its path is taken for the one that was open",
        REAL_DISK,
        "            if (found.st_dev, found.st_ino) != self._identity:\n",
        "            if False:\n",
        (
            "tests/unit/quorate_quorum/log/test_descriptors.py::test_another_file_at_its_path_is_not_taken_for_it",
        ),
    ),
    Mutant(
        "disk-errors",
        "a sync that found no room is tried again",
        f"{LOG_ROOM}/disk_errors.py",
        "if error.errno is None or isinstance(error, SyncError):",
        "if error.errno is None:",
        (
            "tests/unit/quorate_quorum/log/test_disk_errors.py::test_every_error_of_a_sync_is_the_disks",
        ),
    ),
    Mutant(
        "disk-errors",
        "a replica opens again with less than it had, and goes on",
        OPENER,
        "if log.log_end_offset < self._ends.get(key, 0) and not salvage:",
        "if False:",
        (
            "tests/unit/quorate_broker/test_disk_errors.py::test_the_only_replica_does_not_lead_on_with_less_than_it_had",
        ),
    ),
    Mutant(
        "known-formats",
        "a directory that was unmounted is begun anew",
        OPENER,
        "            if key in replicas.unopened:\n                await replicas.files.check",
        "            if False:\n                await replicas.files.check",
        (
            "tests/unit/quorate_broker/test_disk_errors.py::test_a_directory_that_was_unmounted_is_not_begun_anew",
        ),
    ),
    Mutant(
        "honest-unknown",
        "who waits is told of success when the reign ends",
        REACHED_OFFSET,
        "                future.set_exception(if_ended or error)",
        "                future.set_result(None)",
        (
            "tests/unit/quorate_quorum/controller/test_reign.py::test_losing_the_reign_tells_each_what_is_known",
        ),
    ),
    Mutant(
        "bytes-of-now",
        "bytes that were read for a reign that is over are sent",
        RAFT,
        "        return leads and self.ledger.truncations == reply.truncations",
        "        return True",
        (f"{CLOCKS}::test_bytes_that_were_read_for_a_reign_or_a_log_that_is_over_are_not_sent",),
    ),
    Mutant(
        "bytes-of-now",
        "bytes that were read from a log that was cut are sent",
        RAFT,
        "        return leads and self.ledger.truncations == reply.truncations",
        "        return leads",
        (f"{CLOCKS}::test_bytes_that_were_read_for_a_reign_or_a_log_that_is_over_are_not_sent",),
    ),
    Mutant(
        "partial-networks",
        "a leader that reaches one voter of four keeps its place",
        TIMING,
        "return self.fetch_timeout_ms * 3 // 2",
        "return self.fetch_timeout_ms * 3000",
        (
            f"{NETWORKS}"
            "::test_a_quorum_that_can_still_commit_has_one_stable_leader_within_five_election_timeouts",
        ),
    ),
    Mutant(
        "transfer",
        "proposals are taken while leadership goes",
        LEADER,
        "        if self.transfer is not None:\n            raise OverloadedError(",
        "        if False:\n            raise OverloadedError(",
        (f"{TRANSFER}::test_ignore_proposal",),
    ),
    Mutant(
        "transfer",
        "leadership goes to a voter that lacks records",
        TRANSFERRING,
        "return progress.log_end_offset == state.ledger.log_end_offset",
        "return True",
        (f"{TRANSFER}::test_to_slow_follower",),
    ),
    Mutant(
        "transfer",
        "leadership goes to a voter that is silent",
        TRANSFERRING,
        "    if not replicas.is_recent(progress.last_fetch_ms):",
        "    if False:",
        (f"{TRANSFER}::test_to_a_voter_that_is_silent",),
    ),
    Mutant(
        "transfer",
        "a transfer never ends",
        LEADER,
        "if self.transfer is not None and state.now_ms >= self.transfer.deadline_ms:",
        "if False:",
        (f"{TRANSFER}::test_timeout",),
    ),
    Mutant(
        "transfer",
        "who asks again puts the end of a transfer off",
        LEADER,
        "if current is not None and current.to.id == voter_id:",
        "if False:",
        (f"{TRANSFER}::test_second_transfer_to_same_node",),
    ),
    Mutant(
        "one-change",
        "a new voter that has not caught up",
        VOTER_CHANGE,
        "    for voter in added:\n        _check_caught_up",
        "    for voter in ():\n        _check_caught_up",
        (f"{CHANGES}::test_a_voter_that_has_not_caught_up_is_not_added",),
    ),
    Mutant(
        "one-change",
        "a new voter that had caught up long ago",
        PROGRESS_OF_REPLICAS,
        "return at_ms >= 0 and at_ms + self._state.timing.fetch_timeout_ms > self._state.now_ms",
        "return at_ms >= 0",
        (f"{CHANGES}::test_a_voter_that_has_not_caught_up_is_not_added",),
    ),
    Mutant(
        "disk-identity",
        "a disk that forgot votes for a log that may lack what it acknowledged",
        ROLE,
        "        return state.hard_state.is_behind\n",
        "        return False\n",
        (f"{DAMAGE}::test_an_emptied_disk_elects_nobody_and_catches_up",),
    ),
    Mutant(
        "disk-identity",
        "the first vote of a disk is not remembered",
        HARD_STATE,
        "first = self.first_vote_epoch or self.epoch",
        "first = self.first_vote_epoch",
        (
            f"{FORGOTTEN_DISKS}::test_the_first_vote_of_a_disk_is_remembered_with_it_and_never_changed",
        ),
    ),
    Mutant(
        "disk-identity",
        "a disk that voted in an epoch refuses its logs for ever",
        ROLE,
        "if request.last_epoch <= 0 or 0 < first_vote <= request.last_epoch:",
        "if request.last_epoch <= 0:",
        (
            f"{FORGOTTEN_DISKS}::test_a_disk_that_voted_before_grants_to_logs_of_that_epoch_and_later",
        ),
    ),
    Mutant(
        "disk-identity",
        "a disk that forgot stands",
        ROLE,
        "if not state.may_stand() or state.hard_state.is_behind:",
        "if not state.may_stand():",
        (
            f"{FORGOTTEN_DISKS}::test_a_voter_that_holds_only_the_bootstrap_batch_elects_no_history",
            f"{FORGOTTEN_DISKS}::test_it_votes_and_stands_again_once_it_has_fetched_to_a_high_watermark_of_a_leader",
        ),
    ),
    Mutant(
        "no-disruption",
        "whoever comes back is granted pre-votes",
        ROLE,
        "            return not self.hears_a_leader()\n",
        "            return True\n",
        (f"{REJOIN}::test_who_comes_back_changes_no_leader",),
    ),
    Mutant(
        "monotonic-time",
        "timers go by the wall clock",
        NODE,
        "RaftLoop(identity.node_id, loop_ms, fail)",
        "RaftLoop(\n"
        "            identity.node_id,\n"
        "            lambda: environment.wall_clock_ms() - 1_690_000_000_000,\n"
        "            fail,\n"
        "        )",
        (f"{CLOCKS}::test_a_wall_clock_that_jumps_ends_no_reign_and_delays_no_election",),
    ),
    Mutant(
        "one-thread",
        "any thread changes the machine",
        RAFT_LOOP,
        "        if asyncio.get_running_loop() is not self._event_loop:",
        "        if False:",
        (f"{CLOCKS}::test_a_node_is_touched_by_its_own_loop_alone",),
    ),
    Mutant(
        "right-cluster",
        "a listener takes calls that are meant for another cluster",
        "clients/quorate/net/network.py",
        "    if not head.cluster_id or not ours or head.cluster_id == ours:",
        "    if True:",
        (
            "tests/unit/quorate/net/test_network_contract.py::test_a_call_for_another_cluster_reaches_no_service",
            "tests/unit/quorate/cluster/test_cluster.py::test_a_client_goes_on_with_no_other_cluster_at_the_address_of_its_own",
        ),
    ),
    Mutant(
        "right-cluster",
        "a client goes on in another cluster with what it learnt in its own",
        "clients/quorate/cluster/cluster.py",
        "        if self.cluster_id and response.cluster_id != self.cluster_id:",
        "        if False:",
        (
            "tests/unit/quorate/cluster/test_cluster.py::test_an_answer_that_names_another_cluster_is_not_taken",
        ),
    ),
    Mutant(
        "reader-past",
        "a consumer does not tell the epoch of its last record",
        FETCH_STREAM,
        "last_fetched_epoch=state.fetch_epoch if state.fetch_epoch >= 0 else None,",
        "last_fetched_epoch=None,",
        (
            f"{CONSUMER_POSITIONS}::test_what_has_the_place_of_lost_records_is_read_and_not_passed_over",
        ),
    ),
    Mutant(
        "reader-past",
        "a leader does not compare a reader's past",
        LEADER_REPLICA,
        "        if offset >= start:\n",
        "        if False:\n",
        (f"{READER_PAST}::test_a_reader_whose_past_is_not_in_the_log_is_told_where_it_leaves_it",),
    ),
    Mutant(
        "reader-past",
        "a position that was cut is passed over in silence",
        FETCH_STREAM,
        '        if self._config.policy == "none":\n            state.error = errors.LogTruncated',
        "        if False:\n            state.error = errors.LogTruncated",
        (
            f"{CONSUMER_POSITIONS}::test_without_a_policy_a_cut_log_is_told_with_the_safe_offset_until_the_user_seeks",
        ),
    ),
    Mutant(
        "reader-past",
        "a reader goes on where the log was cut, above records that it never read",
        CONSUMER_STATE,
        "        return max(min(end_offset, self.position, *gone), 0)",
        "        return self.position",
        (
            f"{CONSUMER_POSITIONS}::test_what_has_the_place_of_lost_records_is_read_and_not_passed_over",
        ),
    ),
    Mutant(
        "fixed-positions",
        "start returns before the positions are fixed",
        CONSUMER,
        "            await self._settle(list(self._subscription.states.values()))\n        except",
        "        except",
        (f"{CONSUMER_POSITIONS}::test_what_is_written_after_the_call_returned_is_read",),
    ),
    Mutant(
        "new-partitions",
        "a partition that appears later begins at its end",
        SUBSCRIPTION,
        'reset: Reset = "earliest" if is_late and self.policy != "none" else self.policy',
        "reset: Reset = self.policy",
        (f"{NEW_PARTITIONS}::test_a_new_partition_is_read_from_its_beginning",),
    ),
    Mutant(
        "new-partitions",
        "what the first answer to a new subscription adds to a known topic begins at its end",
        "clients/quorate/consumer/assignment.py",
        "self._kept_topics = frozenset(state.topic_id for state in had)",
        "self._kept_topics = frozenset(state.topic_id for state in had if False)",
        (
            f"{NEW_PARTITIONS}::test_a_subscription_that_is_replaced_passes_over_nothing_of_a_topic_that_it_keeps",
        ),
    ),
    Mutant(
        "new-partitions",
        "a topic counts as known as a whole although only some partitions were assigned",
        "clients/quorate/consumer/assignment.py",
        "had = self._subscription.states.values() if self._partitions is None else ()",
        "had = self._subscription.states.values()",
        (
            f"{NEW_PARTITIONS}::test_a_topic_of_which_only_some_partitions_were_assigned_begins_as_any_other",
        ),
    ),
    Mutant(
        "apart",
        "replicas share a rack while another has none",
        PLACEMENT,
        "cost = used > 0, (place.rack, place.host) in hosts, used",
        "cost = False, (place.rack, place.host) in hosts, 0",
        (
            f"{PLACEMENT_TESTS}::test_four_replicas_in_two_racks_are_two_and_two",
            f"{PLACEMENT_TESTS}::test_any_placement_is_apart_and_shared_out",
        ),
    ),
    Mutant(
        "apart",
        "replicas share a host while another has none",
        PLACEMENT,
        "cost = used > 0, (place.rack, place.host) in hosts, used",
        "cost = used > 0, False, used",
        (
            f"{PLACEMENT_TESTS}::test_without_racks_replicas_lie_on_different_hosts",
            f"{PLACEMENT_TESTS}::test_any_placement_is_apart_and_shared_out",
        ),
    ),
    Mutant(
        "apart",
        "one rack has three of four replicas, and the other one",
        PLACEMENT,
        "cost = used > 0, (place.rack, place.host) in hosts, used",
        "cost = used > 0, (place.rack, place.host) in hosts, 0",
        (
            f"{PLACEMENT_TESTS}::test_four_replicas_in_two_racks_are_two_and_two",
            f"{PLACEMENT_TESTS}::test_racks_share_the_replicas_of_a_partition_evenly",
        ),
    ),
    Mutant(
        "apart",
        "a drain does not look where the other replicas are",
        DRAINS,
        "chosen = [place_of(image.brokers[b]) for b in others]",
        'chosen = [Place(b, "", "") for b in others]',
        (
            "tests/unit/quorate_quorum/controller/test_drain.py::test_the_replicas_go_to_others_on_a_rack_of_their_own",
            f"{SPREAD_TESTS}::test_a_drain_keeps_replicas_as_far_apart_as_can_be",
        ),
    ),
    Mutant(
        "fair-shares",
        "followers are taken from the ring, however many replicas they have",
        PLACEMENT,
        "if any(self.replicas[one] > most for one in ids[1:]):",
        "if False:",
        (
            f"{PLACEMENT_TESTS}::test_brokers_of_a_large_rack_share_what_a_small_one_has_not",
            f"{PLACEMENT_TESTS}::test_any_placement_is_apart_and_shared_out",
        ),
    ),
    Mutant(
        "fair-shares",
        "an earlier follower stays, though a later one has freed it",
        PLACEMENT,
        "            while self._hands_one_on(found, slack):\n",
        "            while False:\n",
        (f"{PLACEMENT_TESTS}::test_a_later_replica_on_a_rack_frees_an_earlier_one",),
    ),
    Mutant(
        "fair-shares",
        "a topic that grows forgets which brokers lead its partitions",
        PLACEMENT,
        "            self.leads[ids[0]] += by\n",
        "            self.leads[ids[0]] += 0\n",
        (
            f"{PLACEMENT_TESTS}::test_a_broker_that_has_joined_leads_the_next_partitions",
            f"{PLACEMENT_TESTS}::test_a_topic_that_grows_stays_apart_and_shared_out_with_what_it_has",
        ),
    ),
    Mutant(
        "fair-shares",
        "a drain gives all leaderships to one broker",
        DRAINS,
        "leader = min(undrained, key=self._leads.__getitem__)",
        "leader = undrained[0]",
        (f"{SPREAD_TESTS}::test_drains_share_the_leaderships_among_those_that_may_lead",),
    ),
    Mutant(
        "fair-shares",
        "a drain gives all replicas to one broker",
        DRAINS,
        "fill(chosen, circle, start, len(target), counts)",
        "fill(chosen, circle, 0, len(target))",
        (f"{SPREAD_TESTS}::test_a_drain_gives_replicas_to_the_brokers_with_the_fewest",),
    ),
    Mutant(
        "drained",
        "a drain says nothing of a partition that has no leader to copy from",
        DRAINS,
        "if is_being_moved and (stuck := _why_not_copied(image, topic, index, old)):",
        "if False and (stuck := _why_not_copied(image, topic, index, old)):",
        (f"{DRAIN_TESTS}::test_a_partition_that_nothing_is_copied_of_is_named_each_time",),
    ),
    Mutant(
        "drained",
        "a drain names a partition that is about to get a leader",
        DRAINS,
        "    if any(image.is_live(partition, broker_id) for broker_id in able):\n",
        "    if False:\n",
        (f"{DRAIN_TESTS}::test_a_partition_that_gets_a_leader_without_an_operator_is_not_named",),
    ),
    Mutant(
        "drained",
        "a drain hands a leadership to another drained broker",
        DRAINS,
        "undrained = [b for b in able if not image.brokers[b].cordoned]",
        "undrained = able",
        (f"{DRAIN_TESTS}::test_a_drain_hands_no_leadership_to_another_drained_broker",),
    ),
    Mutant(
        "drained",
        "a drain passes over a topic that is being made",
        "quorum/quorate_quorum/controller/driver/active.py",
        "        await self._creations.settle()\n",
        "",
        (
            "tests/unit/quorate_quorum/controller/test_creation.py::test_a_drain_leaves_no_replica_of_a_topic_that_is_being_made",
        ),
    ),
    Mutant(
        "short-turns",
        "all partitions of an internal topic are raised in one turn",
        "quorum/quorate_quorum/controller/decisions/internal_topics.py",
        "if looked == LOOKED_MAX or len(events) >= CHANGED_MAX:",
        "if False:",
        (
            "tests/unit/quorate_quorum/controller/test_internal_topics.py::test_many_partitions_are_raised_in_turns",
        ),
    ),
    Mutant(
        "death-is-noticed",
        "a broker that did not answer when it registered is not dialled in this reign",
        REACH,
        "return self.found is not Found.FALSEHOOD",
        "return self.found in (Found.NOTHING, Found.BROKER)",
        (
            f"{LIVENESS_TESTS}"
            "::test_a_broker_that_was_too_busy_to_answer_when_it_registered_is_fenced_at_once",
            "tests/unit/quorate_quorum/controller/test_leases.py"
            "::test_a_killed_broker_that_was_busy_when_it_registered_is_fenced_at_once",
        ),
    ),
    Mutant(
        "death-is-noticed",
        "a trial that failed is not repeated",
        REACH,
        "return self.found in (Found.NO_ANSWER, Found.FALSEHOOD) and not self._left_ms",
        "return False",
        (
            f"{LIVENESS_TESTS}"
            "::test_a_trial_that_got_no_answer_is_repeated_ever_more_rarely_until_it_gets_one",
            f"{LIVENESS_TESTS}::test_a_refusal_of_a_moment_is_tried_again_too",
        ),
    ),
    Mutant(
        "death-is-noticed",
        "a suspected broker is dialled once",
        LIVENESS,
        "if session.is_suspected and session.reach.may_dial and not session.dial_again_ms:",
        "if False:",
        (
            f"{LIVENESS_TESTS}"
            "::test_a_suspected_broker_is_dialled_again_until_a_dial_proves_it_gone",
        ),
    ),
    Mutant(
        "death-is-noticed",
        "a broker behind a filter has a grace, as one that has answered",
        REACH,
        "return self.found in (Found.NOTHING, Found.BROKER)",
        "return True",
        (f"{LIVENESS_TESTS}::test_a_broker_that_never_answered_a_dial_has_no_grace",),
    ),
    Mutant(
        "raised-after-moves",
        "an internal topic is raised against the running move of an operator",
        "quorum/quorate_quorum/controller/decisions/internal_topics.py",
        "if missing <= 0 or old.removing:",
        "if missing <= 0:",
        (
            "tests/unit/quorate_quorum/controller/test_internal_topics.py::test_a_target_of_an_operator_is_not_raised_while_its_move_runs",
        ),
    ),
    Mutant(
        "drained",
        "a drained broker gets replicas of new topics",
        "quorum/quorate_quorum/controller/decisions/topics.py",
        "    if broker.cordoned:\n",
        "    if False:\n",
        (
            "tests/unit/quorate_quorum/controller/test_drain.py::test_a_drained_broker_gets_no_new_replicas",
            f"{SPREAD_TESTS}::test_a_topic_is_made_and_grows_on_allowed_brokers_apart",
        ),
    ),
    Mutant(
        "drained",
        "a fenced broker gets replicas of new topics",
        "quorum/quorate_quorum/controller/decisions/topics.py",
        "    if broker.fenced:\n",
        "    if False:\n",
        (
            f"{GROWTH_TESTS}::test_fewer_live_brokers_than_replicas_are_refused_retriably",
            f"{SPREAD_TESTS}::test_a_topic_is_made_and_grows_on_allowed_brokers_apart",
        ),
    ),
    Mutant(
        "drained",
        "a request may assign replicas to a drained broker",
        "quorum/quorate_quorum/controller/decisions/new_partitions.py",
        "        if drained:\n",
        "        if False:\n",
        (f"{SPREAD_TESTS}::test_an_assignment_to_a_drained_broker_is_refused",),
    ),
    Mutant(
        "apart",
        "a plan empties a drained broker onto a host that the partition has already",
        REBALANCE_PLAN,
        "max(takers, key=lambda taker: self._spread([*others, taker]), default=None)",
        "next(iter(takers), None)",
        (f"{REBALANCE_TESTS}::test_a_drained_broker_that_was_alone_in_its_rack_is_emptied",),
    ),
    Mutant(
        "apart",
        "a plan leaves replicas together that may be apart",
        REBALANCE_PLAN,
        "                if after > best:\n",
        "                if False:\n",
        (f"{REBALANCE_TESTS}::test_hosts_are_parted_where_racks_can_not_be",),
    ),
    Mutant(
        "fair-shares",
        "a plan moves replicas for no gain",
        REBALANCE_PLAN,
        "if self._counts[giver] - self._counts[taker] < 2:",
        "if self._counts[giver] - self._counts[taker] < 3:",
        (f"{REBALANCE_TESTS}::test_without_racks_no_replica_moves_that_need_not",),
    ),
    Mutant(
        "fair-shares",
        "a leadership goes to another broker only directly",
        REBALANCE_PLAN,
        "                        queue.append(taker)\n",
        "                        queue += [taker] if broker_id == giver else []\n",
        (f"{REBALANCE_TESTS}::test_leaderships_go_a_way_over_several_brokers",),
    ),
    Mutant(
        "drained",
        "a plan gives replicas to drained brokers",
        REBALANCE_PLAN,
        "if b.alive and not b.drained)",
        "if b.alive)",
        (f"{REBALANCE_TESTS}::test_a_drained_broker_is_emptied_and_a_dead_one_gets_nothing",),
    ),
    Mutant(
        "kept-in-sync",
        "a lower replication factor keeps a replica on a failed disk, and gives up one that serves",
        REBALANCE_PLAN,
        "return (broker_id in serving, is_preferred, costs, *order)",
        "return (broker_id in self._takers, is_preferred, costs, *order)",
        (
            f"{REBALANCE_TESTS}::test_a_replica_on_a_failed_disk_goes_before_others_on_its_broker_s_rack",
        ),
    ),
    Mutant(
        "kept-in-sync",
        "a lower replication factor removes the only replica in sync",
        REBALANCE_PLAN,
        "any(other in in_sync for other in ids if other != b)",
        "True",
        (f"{REBALANCE_TESTS}::test_fewer_replicas_keep_one_that_is_in_sync",),
    ),
    Mutant(
        "kept-in-sync",
        "a lower replication factor takes the only replica on a rack",
        REBALANCE_PLAN,
        "return (broker_id in serving, is_preferred, costs, *order)",
        "return (broker_id in serving, is_preferred, *order)",
        (
            f"{REBALANCE_TESTS}::test_fewer_replicas_keep_the_preferred_leader_racks_apart_and_those_alive",
        ),
    ),
    Mutant(
        "plan-of-another-time",
        "a plan is carried out on replicas that have changed since",
        SAVED_PLAN,
        "elif list(now) != expected:",
        "elif False:",
        (
            f"{SAVED_PLAN_TESTS}::test_a_saved_plan_is_refused_as_a_whole_if_what_it_depends_on_has_changed",
        ),
    ),
    Mutant(
        "plan-of-another-time",
        "a plan is carried out on a topic that was made again",
        SAVED_PLAN,
        "elif topics[name].topic_id != topic_id:",
        "elif False:",
        (
            f"{SAVED_PLAN_TESTS}::test_a_saved_plan_is_refused_as_a_whole_if_what_it_depends_on_has_changed",
        ),
    ),
    Mutant(
        "plan-of-another-time",
        "a plan takes over a move to another place",
        SAVED_PLAN,
        "if target != self.targets[key]:",
        "if False:",
        (
            f"{SAVED_PLAN_TESTS}::test_a_saved_plan_is_refused_as_a_whole_if_what_it_depends_on_has_changed",
        ),
    ),
    Mutant(
        "plan-of-another-time",
        "a plan is carried out although a broker of it is drained",
        SAVED_PLAN,
        "elif broker_id in added and (broker.fenced or broker.drained):",
        "elif broker_id in added and broker.fenced:",
        (
            f"{SAVED_PLAN_TESTS}::test_a_saved_plan_is_refused_as_a_whole_if_what_it_depends_on_has_changed",
        ),
    ),
    Mutant(
        "plan-of-another-time",
        "the controller begins a move that was planned from other replicas",
        "quorum/quorate_quorum/controller/decisions/reassignment.py",
        "if tuple(asked.expected) != old.broker_ids:",
        "if False:",
        (
            "tests/unit/quorate_quorum/controller/test_reassignment.py::test_a_plan_of_another_time_is_refused",
        ),
    ),
    Mutant(
        "plan-of-another-time",
        "a plan that was made during a move overrides it and keeps all replicas",
        "quorum/quorate_quorum/controller/decisions/reassignment.py",
        "if old.is_reassigned and not asked.cancel:",
        "if False:",
        (
            "tests/unit/quorate_quorum/controller/test_reassignment.py::test_a_plan_that_was_made_during_a_move_is_refused",
        ),
    ),
    Mutant(
        "plan-of-another-time",
        "a repeated plan is refused after the first answer was lost",
        "quorum/quorate_quorum/controller/decisions/reassignment.py",
        "if asked.expected and self._has_all(old, asked):",
        "if False:",
        (
            "tests/unit/quorate_quorum/controller/test_reassignment.py::test_a_plan_whose_answer_was_lost_may_be_repeated",
        ),
    ),
    Mutant(
        "plan-of-another-time",
        "a target that the plan does not say the replicas of is moved without the comparison",
        "clients/quorate/admin/reassignments.py",
        "_check_expected(targets, expected)",
        "pass",
        (
            "tests/unit/quorate/admin/test_reassignments.py::test_a_plan_says_of_each_target_what_it_was_made_from",
        ),
    ),
    Mutant(
        "repeated-growth",
        "a repeated request is refused once the first one has been carried out",
        GROWTH,
        "is_repeated = count == now and 0 < known < count",
        "is_repeated = False",
        (f"{GROWTH_TESTS}::test_a_repeated_request_says_that_it_was_carried_out",),
    ),
    Mutant(
        "repeated-growth",
        "the same number is no error if the caller says what it knew",
        GROWTH,
        "is_repeated = count == now and 0 < known < count",
        "is_repeated = count == now and 0 < known",
        (f"{GROWTH_TESTS}::test_the_known_number_makes_no_excuse_for_the_same_number",),
    ),
    Mutant(
        "repeated-growth",
        "the placement of a repeated request begins at the first new partition again",
        GROWTH,
        "given = self._request.assignments[first - self._assigned_from :]",
        "given = self._request.assignments",
        (f"{GROWTH_TESTS}::test_a_repeated_request_goes_on_where_the_first_one_stopped",),
    ),
    Mutant(
        "repeated-growth",
        "a growth goes on in a topic that was made again under the name",
        GROWTH,
        "        if self._topic_id is not None:\n",
        "        if False:\n",
        (
            f"{GROWTH_TESTS}::test_a_topic_that_is_deleted_meanwhile_gets_nothing_though_it_is_made_again",
        ),
    ),
    Mutant(
        "released-at-last",
        "a partition is given back before the callback",
        f"{GROUP}/reconciler.py",
        '        await self._tell("on_partitions_revoked", states)\n',
        "        self._membership.released(parts)\n        self._changed()\n"
        '        await self._tell("on_partitions_revoked", states)\n',
        (f"{GROUP_TESTS}::test_a_member_that_joins_gets_partitions_after_they_are_released",),
    ),
    Mutant(
        "released-at-last",
        "a partition is given back before its commit",
        f"{GROUP}/reconciler.py",
        "            await self._commits.commit_finished(keys)\n",
        "            pass\n",
        (f"{GROUP_TESTS}::test_a_member_that_joins_gets_partitions_after_they_are_released",),
    ),
    Mutant(
        "taken-from-the-last-state",
        "what a broken stream gave is taken up",
        f"{GROUP}/membership.py",
        "        self._give(self._given & self.owned)\n",
        "        pass\n",
        (f"{MEMBERSHIP}::test_a_state_of_a_broken_stream_gives_nothing_more",),
    ),
    Mutant(
        "taken-from-the-last-state",
        "what was given before is taken up",
        f"{GROUP}/membership.py",
        "        return self.withdrawals == withdrawals\n",
        "        return True\n",
        (
            f"{MEMBERSHIP}::test_only_what_the_last_state_gives_may_be_taken_up",
            f"{GROUP_TESTS}::test_a_late_answer_with_committed_offsets_is_not_taken_for_a_new_one",
        ),
    ),
    Mutant(
        "owned-is-told",
        "only the first heartbeat tells what is owned",
        f"{GROUP}/membership.py",
        "        if self._is_first or self.owned != self._reported:\n",
        "        if self._is_first:\n",
        (f"{MEMBERSHIP}::test_a_member_revokes_first_and_reports_when_all_is_released",),
    ),
    Mutant(
        "removed-is-silent",
        "a removed member reads on while a callback runs",
        f"{GROUP}/group.py",
        "    def _lost(self) -> None:\n        self._reconciler.hold_all()\n",
        "    def _lost(self) -> None:\n",
        (f"{GROUP_TESTS}::test_a_removed_member_is_given_nothing_more_while_a_callback_runs",),
    ),
    Mutant(
        "removed-is-silent",
        "a session without news goes on",
        f"{GROUP}/membership.py",
        "is_member and now_ms - self._heard_ms >= self.settings.session_timeout_ms",
        "False",
        (f"{GROUP_TESTS}::test_a_member_without_news_for_its_session_has_lost_its_partitions",),
    ),
    Mutant(
        "done-is-committed",
        "records in hand count as done",
        f"{GROUP}/commits.py",
        "            if first is not None and first < state.position:\n",
        "            if first is not None and first < 0:\n",
        (
            f"{GROUP_TESTS}::test_only_what_the_program_has_come_back_from_is_committed",
            f"{GROUP_TESTS}::test_a_record_with_which_the_program_failed_is_read_again",
        ),
    ),
    Mutant(
        "done-is-committed",
        "a task that waited is given a record in place of that of another task",
        f"{GROUP}/hands.py",
        "        self.end_solo()\n        if self._hands:\n",
        "        if self._hands:\n",
        (
            "tests/unit/quorate/consumer/group/test_hands.py::test_what_is_in_hand_is_known_whichever_way_a_task_asks",
            f"{GROUP_TESTS}::test_tasks_that_read_one_record_each_commit_no_other_s_record",
        ),
    ),
    Mutant(
        "silence-leaves",
        "a program that reads one record at a time is not heard",
        f"{GROUP}/group.py",
        "            if hands.record is not seen:\n",
        "            if False:\n",
        (f"{GROUP_TESTS}::test_a_program_that_reads_one_record_at_a_time_is_not_silent",),
    ),
    Mutant(
        "done-is-committed",
        "a failed task's records count as done",
        f"{GROUP}/hands.py",
        "                if _failed(other):\n",
        "                if False:\n",
        (f"{GROUP_TESTS}::test_the_records_of_a_task_that_failed_are_not_committed",),
    ),
    Mutant(
        "done-is-committed",
        "a stop counts what the program failed with as done",
        "clients/quorate/consumer/consumer.py",
        "self._is_done = sys.exception() is None",
        "self._is_done = True",
        (f"{GROUP_TESTS}::test_a_record_with_which_the_program_failed_is_read_again",),
    ),
    Mutant(
        "cancelled-calls-leave-nothing",
        "a stop that is cancelled closes no connection",
        "clients/quorate/cluster/cluster.py",
        "        try:\n            await self.owner.end(self._refresh, self._keeper)\n"
        "        finally:\n",
        "        await self.owner.end(self._refresh, self._keeper)\n        if True:\n",
        (f"{CANCELLATION}::test_a_stop_that_is_cancelled_at_any_point",),
    ),
    Mutant(
        "cancelled-calls-leave-nothing",
        "a start that is cancelled does not tell the listener that its partitions are gone",
        "clients/quorate/consumer/consumer.py",
        "                await self._end()\n            finally:\n",
        "                self._assignment.leave()\n"
        "                await self._end()\n            finally:\n",
        (f"{CANCELLATION}::test_a_start_that_is_cancelled_at_any_point",),
    ),
    Mutant(
        "cancelled-calls-leave-nothing",
        "after a cancelled commit, the offsets before it are taken for committed",
        f"{GROUP}/commits.py",
        "                self._committed.pop(part, None)\n            raise\n",
        "                pass\n            raise\n",
        (
            f"{GROUP_TESTS}::test_after_a_cancelled_commit_the_next_automatic_one_names_the_offset_again",
        ),
    ),
    Mutant(
        "first-position-kept",
        "first positions are committed with the next interval",
        f"{GROUP}/placement.py",
        "        if not fresh or ",
        "        if fresh or ",
        (f"{GROUP_TESTS}::test_the_first_position_of_latest_is_committed_before_start_returns",),
    ),
    Mutant(
        "group-new-partitions",
        "a partition that a member saw come is read from its end",
        f"{GROUP}/starts.py",
        "    if part.partition >= subscribed.get(part.topic_id, 0):\n",
        "    if False:\n",
        (f"{GROUP_TESTS}::test_a_partition_that_is_added_is_read_from_its_beginning_with_latest",),
    ),
    Mutant(
        "group-new-partitions",
        "a partition that came while no member ran is read from its end",
        f"{GROUP}/starts.py",
        "    return count is not None and part.partition >= count\n",
        "    return False\n",
        (
            f"{GROUP_TESTS}::test_a_partition_that_is_added_is_read_from_its_beginning_with_latest",
            f"{GROUP_TESTS}::test_what_is_added_while_a_group_is_down_is_read_though_it_committed_one_partition_alone",
        ),
    ),
    Mutant(
        "group-new-partitions",
        "a commit of one partition makes the others of the topic new to the group",
        f"{GROUP}/starts.py",
        "    return count is not None and part.partition >= count\n",
        "    return count is not None\n",
        (
            f"{GROUP_TESTS}::test_a_partition_without_a_commit_is_not_read_from_its_beginning_for_a_commit_of_another",
            f"{GROUP_TESTS}::test_an_offset_that_an_operator_sets_does_not_make_a_new_group_read_the_other_partitions",
        ),
    ),
    Mutant(
        "group-new-partitions",
        "a partition that a group committed after a growth makes the group younger",
        "clients/quorate/cluster/group_offsets.py",
        "min(count, counts.get(topic.topic_id, count))",
        "max(count, counts.get(topic.topic_id, count))",
        (f"{GROUP_TESTS}::test_a_program_that_joins_after_a_growth_reads_what_it_is_given_of_it",),
    ),
    Mutant(
        "group-new-partitions",
        "each commit makes the group as young as itself",
        f"{GROUP_MACHINE}/offsets.py",
        "    return before.partitions_at_first_commit\n",
        "    return topic.partitions\n",
        (
            f"{COMMITTED_OFFSETS}::test_an_offset_tells_how_many_partitions_the_topic_had_at_its_first_commit",
        ),
    ),
    Mutant(
        "group-new-partitions",
        "a topic that is made again inherits the age of its group",
        f"{GROUP_MACHINE}/offsets.py",
        "before is None or before.topic_id != topic.id or not before.partitions_at_first_commit",
        "before is None or not before.partitions_at_first_commit",
        (f"{COMMITTED_OFFSETS}::test_the_first_commit_of_a_topic_made_again_is_a_first_one",),
    ),
    Mutant(
        "group-new-partitions",
        "an age that is not known stays unknown",
        f"{GROUP_MACHINE}/offsets.py",
        "before is None or before.topic_id != topic.id or not before.partitions_at_first_commit",
        "before is None or before.topic_id != topic.id",
        (
            f"{COMMITTED_OFFSETS}::test_the_first_commit_that_an_older_program_did_not_note_is_the_next_one",
        ),
    ),
    Mutant(
        "silence-leaves",
        "a silent program keeps its partitions",
        f"{GROUP}/poll_watch.py",
        "        return now_ms - self._seen_ms > self.interval_ms\n",
        "        return False\n",
        (f"{GROUP_TESTS}::test_a_program_that_does_not_ask_for_records_leaves_and_comes_back",),
    ),
    Mutant(
        "silence-leaves",
        "a program that waits for records is heard, though its callback hangs",
        f"{GROUP}/poll_watch.py",
        "if not self.in_callback and (",
        "if (",
        (f"{GROUP_TESTS}::test_a_callback_that_hangs_costs_the_member_its_place_until_it_ends",),
    ),
    Mutant(
        "standalone-offsets-last",
        "what is committed is not committed again",
        f"{GROUP}/commits.py",
        "        self._committed.clear()\n",
        "        pass\n",
        (f"{GROUP_TESTS}::test_automatic_commits_after_assign_are_renewed_before_they_can_expire",),
    ),
    Mutant(
        "one-task-a-partition",
        "any task gets any partition",
        f"{GROUP}/hands.py",
        "            if other is not asker and not other.done()\n",
        "            if other is asker and not other.done()\n",
        (f"{GROUP_TESTS}::test_getmany_gives_no_partition_to_two_tasks_at_once",),
    ),
    Mutant(
        "consumer-fairness",
        "what unread partitions hold stops the fetching of those that are read",
        BUFFER,
        "        if not self.is_full:\n            return dropped\n",
        "        if True:\n            return dropped\n",
        (
            f"{CONSUMER_FAULTS}::test_what_other_partitions_hold_does_not_stop_the_one_that_is_read",
            f"{CONSUMER_BUFFER}::test_no_partition_that_is_read_starves_whatever_others_hold",
        ),
    ),
    Mutant(
        "idempotence",
        "a batch that an earlier attempt may have written is split, and its parts are sent as new",
        ACCUMULATOR,
        "        if batch.count == 1 or batch.is_whole or batch.is_uncertain:",
        "        if batch.count == 1 or batch.is_whole:",
        (
            f"{ACCUMULATIONS}::test_what_may_have_been_written_is_not_split_but_its_outcome_is_unknown",
        ),
    ),
    Mutant(
        "idempotence",
        "the parts of a batch that was too large take other sequences than the batch had",
        "clients/quorate/producer/batch_split.py",
        "        part.base_sequence = (batch.base_sequence + start) & SEQUENCE_MAX",
        "        part.base_sequence = batch.base_sequence",
        (
            f"{ACCUMULATIONS}::test_a_batch_that_is_too_large_goes_on_in_parts_with_its_sequences",
            f"{ACCUMULATIONS}::test_nothing_lost_doubled_or_out_of_order_when_batches_are_split",
        ),
    ),
    Mutant(
        "idempotence",
        "a partition that was forgotten begins again at sequence 0 of the same epoch",
        ACCUMULATOR,
        "        elif used.producer_epoch >= identity.producer_epoch:",
        "        elif False:",
        (
            f"{ACCUMULATIONS}::test_a_partition_that_was_dropped_goes_on_under_a_higher_epoch",
            f"{TOPICS}::test_a_topic_that_is_idle_for_minutes_is_forgotten_and_can_be_used_again",
        ),
    ),
    Mutant(
        "honest-producer",
        "a batch that expires after an attempt in doubt says that it was not written",
        "clients/quorate/producer/accumulator.py",
        "    may_be_written = batch.is_uncertain or batch in batch.queue.in_flight\n",
        "    may_be_written = False\n",
        (
            "tests/unit/quorate/producer/test_accumulator.py::test_a_batch_that_expires_says_whether_an_attempt_may_have_written_it",
        ),
    ),
    Mutant(
        "honest-producer",
        "a program's own batch that is too large is split, so that a part of it may be written",
        ACCUMULATOR,
        "        if batch.count == 1 or batch.is_whole or batch.is_uncertain:",
        "        if batch.count == 1 or batch.is_uncertain:",
        (
            "tests/unit/quorate/producer/test_record_batch.py"
            "::test_a_batch_that_is_too_large_is_not_split_and_later_records_go_on",
        ),
    ),
    Mutant(
        "honest-producer",
        "what may have been written fails as if it was not",
        ACCUMULATOR,
        "        if batch.is_uncertain and not isinstance(error, OutcomeUnknownError):",
        "        if False:",
        (
            f"{ACCUMULATIONS}::test_closed_is_what_was_not_sent_and_unknown_what_was",
            f"{TOPICS}::test_what_an_earlier_attempt_may_have_written_fails_as_unknown",
        ),
    ),
    Mutant(
        "honest-producer",
        "what may be in a deleted topic is written to the one made again, too",
        "clients/quorate/producer/partition_queue.py",
        "            if batch in old.in_flight or batch.is_uncertain or batch.opened_at < made_at:",
        "            if batch in old.in_flight or batch.opened_at < made_at:",
        (
            f"{ACCUMULATIONS}::test_a_topic_made_again_takes_over_in_order_what_was_surely_not_written",
            f"{TOPICS}::test_what_may_be_in_the_deleted_topic_is_not_sent_to_the_new_one",
        ),
    ),
    Mutant(
        "honest-producer",
        "a topic made again gets newer records before older ones that come back",
        "clients/quorate/producer/partition_queue.py",
        "            if self.predecessor.in_flight:",
        "            if False:",
        (
            f"{ACCUMULATIONS}::test_a_topic_made_again_takes_over_in_order_what_was_surely_not_written",
        ),
    ),
    Mutant(
        "loss-is-told",
        "a lossy replica is not reported",
        "broker/quorate_broker/heartbeats.py",
        "            lossy_replicas=self._lossy(),\n",
        "",
        (
            "tests/unit/quorate_broker/test_lifecycle.py::test_it_stays_fenced_until_its_lossy_replicas_are_settled",
            f"{LOSSY_CLUSTER}::test_a_damaged_replica_that_comes_back_first_costs_nothing",
        ),
    ),
    Mutant(
        "loss-is-told",
        "a broker is unfenced before its lossy replicas are settled",
        "broker/quorate_broker/heartbeats.py",
        "want_fence=not self._is_open or len(self._replicas.losses) > 0,",
        "want_fence=not self._is_open,",
        (
            "tests/unit/quorate_broker/test_lifecycle.py::test_it_stays_fenced_until_its_lossy_replicas_are_settled",
        ),
    ),
    Mutant(
        "lossy-is-out",
        "a lossy replica stays in the ELR",
        "quorum/quorate_quorum/controller/decisions/lossy_replicas.py",
        "if broker_id not in old.isr and broker_id not in old.elr:",
        "if broker_id not in old.isr:",
        (
            f"{CONTROLLER_LOSSY}::test_a_lossy_replica_leaves_the_elr_and_is_no_clean_leader",
            f"{LOSSY_CLUSTER}::test_a_damaged_replica_that_comes_back_first_costs_nothing",
        ),
    ),
    Mutant(
        "lossy-is-out",
        "a replica that leaves the ISR for its damage enters the ELR",
        "quorum/quorate_quorum/controller/decisions/lossy_replicas.py",
        "because=because, lossy=lossy)",
        "because=because)",
        (f"{CONTROLLER_LOSSY}::test_a_lossy_replica_leaves_the_isr_and_enters_no_elr",),
    ),
    Mutant(
        "lossy-is-out",
        "a loss is believed of a state in which the replica has caught up",
        "quorum/quorate_quorum/controller/decisions/lossy_replicas.py",
        "        if old.partition_epoch == one.partition_epoch:\n",
        "        if True:\n",
        (f"{CONTROLLER_LOSSY}::test_what_was_told_of_an_older_state_is_passed_over",),
    ),
    Mutant(
        "inventory",
        "a missing directory is trusted",
        OPENER,
        "if is_noted and not partition.log.has_segments:",
        "if False:",
        (f"{LOSSY_CLUSTER}::test_a_damaged_replica_that_comes_back_first_costs_nothing",),
    ),
    Mutant(
        "inventory",
        "an inventory that is gone says that nothing was written",
        "broker/quorate_broker/files/inventory.py",
        "            if has_run:\n",
        "            if False:\n",
        (
            "tests/unit/quorate_broker/files/test_inventory.py::test_one_that_is_gone_means_that_all_was_written_if_there_was_a_run",
        ),
    ),
    Mutant(
        "inventory",
        "an inventory that was cut says that what is missing was not written",
        "broker/quorate_broker/files/inventory.py",
        "    is_cut = not last or any(last) or any(amid)\n",
        "    is_cut = False\n",
        (
            "tests/unit/quorate_broker/files/test_inventory.py::test_one_that_is_cut_anywhere_means_that_all_was_written",
        ),
    ),
    Mutant(
        "inventory",
        "the first append counts before it is noted",
        "broker/quorate_broker/replica/replica_log.py",
        "            await self._replica.host.written(self._replica)\n",
        "",
        (f"{LOSSY_CLUSTER}::test_a_damaged_replica_that_comes_back_first_costs_nothing",),
    ),
    Mutant(
        "damage-is-told",
        "what open cuts is not told",
        f"{LOG_ROOM}/recovery.py",
        "if self._config.salvage or (self._run.tail_intact and not is_last_write):",
        "if self._config.salvage:",
        (f"{LOG_DAMAGE}::test_any_flipped_bit_of_a_completed_write_is_damage",),
    ),
    Mutant(
        "damage-is-told",
        "an end below the high watermark's checkpoint is not told",
        f"{LOG_ROOM}/recovery.py",
        "if known is not None and known[0] > end and is_sure:",
        "if False:",
        (f"{LOG_DAMAGE}::test_an_end_below_what_was_committed_is_damage",),
    ),
    Mutant(
        "damage-is-told",
        "damage is forgotten by a crash between the cut and the telling",
        f"{LOG_ROOM}/recovery.py",
        "        if DAMAGED_FILE in names:\n",
        "        if False:\n",
        (f"{LOG_DAMAGE}::test_damage_is_told_at_each_open_until_it_is_forgotten",),
    ),
    Mutant(
        "damage-is-told",
        "a changed length passes for a write that a kill interrupted",
        f"{LOG_ROOM}/torn.py",
        "    return not await has_later_batch(file, position + _BEFORE, size, next_offset)\n",
        "    return True\n",
        (
            f"{LOG_DAMAGE}::test_a_changed_length_is_damage_though_its_batch_has_changed_elsewhere_too",
        ),
    ),
    Mutant(
        "lossy-has-no-role",
        "a lossy replica takes its role before the controller knows",
        RECONCILER,
        "        is_trusted = partition.key not in self.replicas.losses\n",
        "        is_trusted = True\n",
        (f"{REPAIRED}::test_a_lossy_replica_takes_no_role_while_the_image_counts_on_it",),
    ),
    Mutant(
        "lossy-has-no-role",
        "a repaired follower is taken into the ISR for what it had",
        REPAIRS,
        "        elif is_trusted:\n            reason",
        "        elif False:\n            reason",
        (f"{REPAIRED}::test_a_repaired_follower_is_not_trusted_for_what_it_had_before",),
    ),
    Mutant(
        "one-change-a-slice",
        "a slice goes on into the next lap with the image from before its changes",
        "quorum/quorate_quorum/controller/decisions/sweep.py",
        "                if part.events:",
        "                if False:",
        (
            "tests/unit/quorate_quorum/controller/test_sweep.py::test_a_slice_changes_no_partition_twice",
        ),
    ),
    Mutant(
        "readable-batches",
        "a batch is acknowledged that no consumer may decompress",
        "broker/quorate_broker/replica/checks.py",
        "        return record_batch.record_bytes(batch, header)\n",
        "        return record_batch.record_bytes(batch, header, size_max=1 << 40)\n",
        (f"{CHECKS}::test_a_batch_is_accepted_just_when_it_can_be_read",),
    ),
    Mutant(
        "readable-batches",
        "the records of a batch are not looked into",
        "broker/quorate_broker/replica/checks.py",
        "        for first in range(0, header.count, RECORDS_AT_A_TIME):",
        "        for first in range(0):",
        (f"{CHECKS}::test_a_batch_whose_records_no_consumer_can_decode_is_refused",),
    ),
    Mutant(
        "readable-batches",
        "bytes may follow the last record",
        "broker/quorate_broker/replica/checks.py",
        "        if position != len(data):",
        "        if False:",
        (f"{CHECKS}::test_a_batch_whose_records_no_consumer_can_decode_is_refused",),
    ),
    Mutant(
        "readable-batches",
        "the headers of a record are not looked into",
        "clients/quorate/record/walks.py",
        "                _, position = decode_headers(data, position, end)\n",
        "                position = end\n",
        (f"{CHECKS}::test_a_batch_whose_records_no_consumer_can_decode_is_refused",),
    ),
    Mutant(
        "readable-batches",
        "records are alike if the first one is good",
        "clients/quorate/record/alike.py",
        "        count -= len(column.lstrip(column[:1]))\n",
        "",
        (WALKS,),
    ),
    Mutant(
        "readable-batches",
        "a length of three bytes passes for null",
        "clients/quorate/record/alike.py",
        "LONG: Final = 3",
        "LONG: Final = NULL",
        (WALKS,),
    ),
    Mutant(
        "readable-batches",
        "offsets of records that are alike are not compared",
        "clients/quorate/record/alike.py",
        "            offsets == _OFFSET_LOW_BYTES[first : first + count]\n            and high",
        "            high",
        (WALKS,),
    ),
    Mutant(
        "readable-batches",
        "times of records that are alike are not looked at",
        "clients/quorate/record/alike.py",
        "        is_good = is_good and times.isascii()\n",
        "        is_good = is_good and True\n",
        (WALKS,),
    ),
    Mutant(
        "readable-batches",
        "the headers of records that are alike are not looked at",
        "clients/quorate/record/alike.py",
        "not is_good or data[headers_at] or count",
        "not is_good or count",
        (WALKS,),
    ),
    Mutant(
        "bounded-messages",
        "a varint goes on as long as its bytes say so",
        f"{KAFKA}/wire.py",
        "VARINT_BYTES_MAX: Final = 5",
        "VARINT_BYTES_MAX: Final = 1 << 20",
        (f"{HOSTILE_MESSAGES}::test_a_varint_has_at_most_five_bytes",),
    ),
    Mutant(
        "bounded-messages",
        "a decoder does not ask where the message ended",
        f"{KAFKA}/messages/offset_delete.py",
        "    if position != end:\n",
        "    if False:\n",
        (
            f"{HOSTILE_MESSAGES}::test_a_cut_message_and_bytes_left_over_are_refused",
            f"{HOSTILE_MESSAGES}::test_what_stands_before_and_behind_the_message_is_not_read",
        ),
    ),
    Mutant(
        "bounded-messages",
        "the header of a request goes on behind its frame",
        f"{KAFKA}/codec.py",
        "    if position > len(frame):\n",
        "    if False:\n",
        (f"{MESSAGES}::test_a_client_id_beyond_the_frame_is_refused",),
    ),
    Mutant(
        "kafka-order",
        "the next Produce begins before the batches of the one before are queued",
        f"{KAFKA}/connection.py",
        "is_behind_produce = before.is_accepted and before.request.api_key == PRODUCE",
        "is_behind_produce = before.request.api_key == PRODUCE",
        (
            f"{KAFKA_TESTS}/test_connection.py::test_a_produce_request_begins_while_those_before_it_wait_for_their_commit",
        ),
    ),
    Mutant(
        "kafka-order",
        "any request begins behind a Produce request that waits",
        f"{KAFKA}/connection.py",
        "if not is_behind_produce or self._queued[0].api_key != PRODUCE:",
        "if not is_behind_produce:",
        (
            f"{KAFKA_TESTS}/test_connection.py::test_a_produce_request_begins_while_those_before_it_wait_for_their_commit",
        ),
    ),
    Mutant(
        "kafka-order",
        "an answer leaves as soon as it is ready",
        f"{KAFKA}/connection.py",
        "while self._owed and self._owed[0].is_answered:",
        "while self._owed:",
        (f"{KAFKA_TESTS}/test_connection.py::test_answers_leave_in_the_order_of_the_requests",),
    ),
    Mutant(
        "kafka-order",
        "the answer leaves before every batch of the request is queued",
        f"{KAFKA}/produce.py",
        "if not owed.is_complete or owed.unknown or owed.response.done():",
        "if not owed.is_complete or owed.response.done():",
        (f"{KAFKA_TESTS}/test_produce.py::test_batches_are_queued_before_the_handler_returns",),
    ),
    Mutant(
        "kafka-outcomes",
        "an unknown outcome says that nothing was written",
        f"{KAFKA}/errors.py",
        "errors.OutcomeUnknownError: REQUEST_TIMED_OUT,",
        "errors.OutcomeUnknownError: NOT_LEADER_OR_FOLLOWER,",
        (
            f"{KAFKA_TESTS}/test_errors.py::test_an_unknown_outcome_never_says_that_nothing_was_written",
        ),
    ),
    Mutant(
        "kafka-outcomes",
        "a batch with acks=0 fails, and the connection stays open",
        f"{KAFKA}/produce.py",
        "        if failed is None:\n",
        "        if True:\n",
        (f"{KAFKA_TESTS}/test_produce.py::test_an_error_with_acks_0_closes_the_connection",),
    ),
    Mutant(
        "bounded-decompression",
        "the output of gzip is not counted",
        f"{CODECS}/gzip.py",
        "            if size > size_max:",
        "            if False:",
        (f"{CODEC_TESTS}/test_gzip.py::test_a_bomb_of_many_members_stops_at_the_bound",),
    ),
    Mutant(
        "bounded-decompression",
        "a block of snappy is believed whatever it claims",
        f"{CODECS}/snappy.py",
        "            if size * _COPY_BYTES > (len(block) - index - 1) * _COPIED_BYTES_MAX:",
        "            if False:",
        (f"{CODEC_TESTS}/test_snappy.py::test_a_size_that_a_block_can_not_hold_allocates_nothing",),
    ),
    Mutant(
        "bounded-decompression",
        "the content size of an LZ4 frame is believed",
        f"{CODECS}/lz4.py",
        "    return bound if content is None else min(bound, content)",
        "    return bound if content is None else content",
        (f"{CODEC_TESTS}/test_lz4.py::test_a_content_size_that_lies_is_not_believed",),
    ),
    Mutant(
        "bounded-decompression",
        "the content size of a zstd frame is believed",
        f"{CODECS}/zstd.py",
        "        bound = min(bound, content)",
        "        bound = content",
        (f"{CODEC_TESTS}/test_zstd.py::test_a_frame_that_claims_a_huge_content_is_not_believed",),
    ),
    Mutant(
        "recompression-keeps",
        "recompression drops the flags of the batch",
        "clients/quorate/record/recompression.py",
        "attributes & ~CODEC_MASK | codec)",
        "codec)",
        ("tests/unit/quorate/record/test_recompression.py::test_the_flags_stay",),
    ),
    Mutant(
        "recompression-keeps",
        "batches that grew are appended in another order",
        "broker/quorate_broker/replica/produce_queue.py",
        "                self._queue[:0] = taken[index:]",
        "                self._queue += taken[index:][::-1]",
        (f"{RECOMPRESSION}::test_batches_that_grow_keep_their_order_and_the_bound_of_one_append",),
    ),
    Mutant(
        "damaged-leader-yields",
        "a leader with a bad batch serves it for ever",
        "broker/quorate_broker/replica/damage.py",
        "if self.reason is None and self._replica.is_leader and not self._log.is_closed:",
        "if False:",
        (
            f"{LOSSY_CLUSTER}::test_a_leader_with_a_bad_batch_gives_way_to_a_good_copy_and_is_repaired",
        ),
    ),
    Mutant(
        "damaged-leader-yields",
        "a damaged leader that is alone in the ISR gives way to no member of the ELR",
        "broker/quorate_broker/replica/partition.py",
        "for others in (state.isr, state.elr):",
        "for others in (state.isr,):",
        (
            "tests/simulation/test_cluster_damaged_alone.py"
            "::test_a_damaged_leader_that_is_alone_in_the_isr_gives_way_to_a_member_of_the_elr",
        ),
    ),
    Mutant(
        "damaged-leader-yields",
        "a leader that gave way for its damage is trusted as a follower",
        RECONCILER,
        "if partition is not None and partition.damage.reason and is_led_elsewhere:",
        "if False:",
        (
            f"{LOSSY_CLUSTER}::test_a_leader_with_a_bad_batch_gives_way_to_a_good_copy_and_is_repaired",
        ),
    ),
    Mutant(
        "damaged-leader-yields",
        "a leader that leaves the ISR for its damage enters the ELR",
        "quorum/quorate_quorum/controller/decisions/partitions.py",
        "lossy=(leader,) if resigns and proposal.lossy else (),",
        "lossy=(),",
        (f"{CONTROLLER_LOSSY}::test_a_leader_that_leaves_for_its_damage_enters_no_elr",),
    ),
    Mutant(
        "offline-is-out-of-sync",
        "an offline replica counts as caught up by the requests of its stream",
        "broker/quorate_broker/replica/leader.py",
        "        if self.has_left:\n            return Cause(",
        "        if False:\n            return Cause(",
        (
            "tests/unit/quorate_broker/replica/test_leader.py"
            "::test_a_follower_that_leaves_a_partition_out_of_its_stream_is_out_of_sync_at_once",
        ),
    ),
    Mutant(
        "isr-of-the-image",
        "a leader takes the new ISR from the controller's answer, with its old min ISR",
        LEADER_REPLICA,
        "        if not is_coming:\n",
        "        self.machine.in_sync.decided(partition_epoch, proposal.isr)\n"
        "        self._isr_changed()\n"
        "        if not is_coming:\n",
        (
            "tests/unit/quorate_broker/replication/test_streams.py"
            "::test_a_leader_commits_nothing_by_a_new_isr_before_it_has_the_image_with_its_min_isr",
        ),
    ),
    Mutant(
        "lossy-election-waits",
        "an empty log, the last of the ISR, leads before all others have told what they hold",
        "quorum/quorate_quorum/controller/decisions/lossy_elections.py",
        "has_all = len(told) == len(partition.broker_ids)",
        "has_all = all(b in told for b in partition.last_isr)",
        (
            f"{CONTROLLER_LOSSY}"
            "::test_a_wiped_last_member_is_no_candidate_before_all_others_have_answered",
            "tests/unit/quorate_quorum/controller/test_partitions.py"
            "::test_an_empty_log_does_not_lead_while_a_replica_outside_the_isr_is_silent",
        ),
    ),
    Mutant(
        "follower-reads",
        "a follower serves records that are not committed",
        SERVED_BY_FOLLOWERS,
        "batches = await self._read(offset, high_watermark, bytes_max, at_least_one)",
        "batches = await self._read(offset, end, bytes_max, at_least_one)",
        (f"{FOLLOWER_READS}::test_nothing_above_its_own_high_watermark_is_read",),
    ),
    Mutant(
        "follower-reads",
        "a follower serves what it called committed before a lossy election",
        SERVED_BY_FOLLOWERS,
        "if not self._machine.has_matched:",
        "if False:",
        (f"{FOLLOWER_READS}::test_nothing_is_read_before_the_leader_has_confirmed_its_log",),
    ),
    Mutant(
        "follower-reads",
        "a follower serves a consumer whose last record has another epoch here",
        SERVED_BY_FOLLOWERS,
        "if divergence(log.epochs, start, high_watermark, offset, last_epoch) is not None:",
        "if False:",
        (f"{FOLLOWER_READS}::test_another_past_is_for_the_leader_to_judge",),
    ),
    Mutant(
        "follower-reads",
        "a follower calls a position above its log out of range",
        SERVED_BY_FOLLOWERS,
        'raise self._ask_the_leader(f"offset {offset} is above this follower\'s end {end}")',
        "raise OffsetOutOfRangeError(name)",
        (f"{FOLLOWER_READS}::test_a_position_above_its_log_is_for_the_leader_to_judge",),
    ),
    Mutant(
        "follower-reads",
        "a leader sends consumers to a broker that is fenced or stops",
        READ_REPLICAS,
        "if broker.fenced or broker.shutting_down:",
        "if False:",
        (
            f"{READ_REPLICA_TESTS}::test_the_replica_is_in_the_rack_in_sync_alive_reachable_and_has_the_position",
        ),
    ),
    Mutant(
        "follower-reads",
        "a leader sends consumers to a replica that it does not hear",
        READ_REPLICAS,
        "if progress.stream_that_keeps(offset, now_ms, leader.lag_ms) is None:",
        "if False:",
        (f"{READ_REPLICA_TESTS}::test_a_silent_replica_gets_no_consumers",),
    ),
    Mutant(
        "follower-reads",
        "a consumer whose follower refused it goes back there at once",
        "clients/quorate/consumer/read_replicas.py",
        "            return False\n        self._staying[state] = self._now() + STAY_S\n",
        "            return False\n",
        (f"{READ_REPLICAS_SIM}::test_a_follower_that_refuses_is_left_alone_for_a_while",),
    ),
    Mutant(
        "follower-reads",
        "a follower that has left the ISR keeps its consumers",
        SERVED_BY_FOLLOWERS,
        "elif replica.state is None or replica.broker_id not in replica.state.isr:",
        "elif False:",
        (f"{FOLLOWER_READS}::test_one_that_has_left_the_isr_sends_its_consumers_to_the_leader",),
    ),
    Mutant(
        "follower-reads",
        "a follower that is cut off keeps its consumers",
        SERVED_BY_FOLLOWERS,
        "elif self.contact.is_silent(loop_ms(), lag_ms):",
        "elif False:",
        (f"{FOLLOWER_READS}::test_one_that_does_not_hear_its_leader_sends_its_consumers_away",),
    ),
    Mutant(
        "follower-reads",
        "a leader sends consumers to a replica that lags",
        READ_REPLICAS,
        "for broker_id in leader.isr:",
        "for broker_id in leader.replicas:",
        (
            f"{READ_REPLICA_TESTS}::test_the_replica_is_in_the_rack_in_sync_alive_reachable_and_has_the_position",
        ),
    ),
    Mutant(
        "follower-reads",
        "a consumer believes a follower that its position is gone",
        FETCH_STREAM,
        "if self._read_replicas.refused(state):",
        "if False:",
        (f"{READ_REPLICAS_SIM}::test_a_follower_s_word_about_a_position_is_not_final",),
    ),
    Mutant(
        "newcomers-wait",
        "a replica that is only being added leads as soon as it has most of those that are there",
        LOSSY_ELECTIONS,
        "ends = _candidates(partition, told, asked=is_requested)",
        "ends = dict(told)",
        (
            f"{LOSSY_ELECTION_TESTS}"
            "::test_a_replica_that_is_only_being_added_leads_after_all_originals_have_answered",
            f"{LOSSY_ELECTION_TESTS}"
            "::test_no_lossy_election_removes_a_replica_or_passes_over_an_original_for_less",
        ),
    ),
    Mutant(
        "newcomers-wait",
        "the wait for the originals begins with a replica that is only being added",
        LOSSY_ELECTIONS,
        "if _newcomers(partition).issuperset(back):",
        "if not back:",
        (
            f"{LOSSY_ELECTION_TESTS}"
            "::test_the_wait_for_the_originals_begins_when_the_first_of_them_is_back",
        ),
    ),
    Mutant(
        "newcomers-wait",
        "an election that loses records ends a move",
        LOSSY_ELECTIONS,
        "    new = replace(new, recovered_epoch=new.leader_epoch)\n",
        "    new = replace(new, recovered_epoch=new.leader_epoch, adding=(), removing=())\n"
        "    kept = tuple(r for r in new.replicas if r.broker_id not in old.removing)\n"
        "    new = replace(new, replicas=kept)\n",
        (
            f"{REASSIGNMENT_TESTS}::test_an_election_that_loses_records_removes_no_replica",
            f"{LOSSY_ELECTION_TESTS}"
            "::test_no_lossy_election_removes_a_replica_or_passes_over_an_original_for_less",
        ),
    ),
    Mutant(
        "empty-by-request",
        "a replica whose directory is gone begins with an empty log by itself",
        LOSSY_ELECTIONS,
        "        if request is not None:\n            request.seen",
        "        request = request or _Request(0, set())\n        if 1:\n            request.seen",
        (
            f"{LOSSY_ELECTION_TESTS}"
            "::test_a_replica_whose_directory_is_gone_begins_empty_only_if_an_operator_asks",
        ),
    ),
    Mutant(
        "empty-by-request",
        "a replica begins empty because another one is fenced for a moment",
        LOSSY_ELECTIONS,
        "            if not request.seen:\n",
        "            if not back:\n",
        (
            f"{LOSSY_ELECTION_TESTS}"
            "::test_no_replica_begins_empty_while_another_was_alive_during_the_request",
            f"{LOSSY_ELECTION_TESTS}"
            "::test_no_replica_begins_empty_while_another_shuts_down_but_on_the_next_request",
        ),
    ),
    Mutant(
        "empty-by-request",
        "a request forgets which replicas were alive when it was accepted",
        LOSSY_ELECTIONS,
        "_Request(until_ms, set(live))",
        "_Request(until_ms, set())",
        (
            f"{LOSSY_ELECTION_TESTS}"
            "::test_no_replica_begins_empty_while_another_was_alive_during_the_request",
        ),
    ),
    Mutant(
        "empty-by-request",
        "an election on request passes over a replica that is fenced for a moment",
        LOSSY_ELECTIONS,
        "if request is not None and not request.seen.issubset(back):",
        "if False:",
        (
            f"{LOSSY_ELECTION_TESTS}"
            "::test_a_request_waits_for_the_replica_that_was_alive_and_may_have_most_records",
        ),
    ),
    Mutant(
        "empty-by-request",
        "a request for all partitions lets replicas begin empty",
        "quorum/quorate_quorum/controller/decisions/requested_elections.py",
        "elect_any(image, topic, old, is_named=not self.request.all_topics)",
        "elect_any(image, topic, old, is_named=True)",
        (
            f"{REQUESTED}"
            "::test_a_replica_on_a_replaced_disk_may_begin_empty_if_its_partition_is_named",
        ),
    ),
    Mutant(
        "clean-election",
        "a preferred replica outside the ISR takes over on request",
        "quorum/quorate_quorum/controller/decisions/requested_elections.py",
        "if new is old and preferred in old.isr and image.is_eligible(old, preferred):",
        "if new is old and image.is_eligible(old, preferred):",
        (
            f"{REQUESTED}::test_a_preferred_replica_that_leads_or_may_not_lead_changes_nothing",
            f"{REQUESTED}::test_a_preferred_election_never_leads_outside_of_isr_and_elr",
        ),
    ),
    Mutant(
        "clean-election",
        "a preferred replica whose broker is dead takes over on request",
        "quorum/quorate_quorum/controller/decisions/requested_elections.py",
        "if new is old and preferred in old.isr and image.is_eligible(old, preferred):",
        "if new is old and preferred in old.isr:",
        (f"{REQUESTED}::test_a_preferred_replica_that_leads_or_may_not_lead_changes_nothing",),
    ),
    Mutant(
        "clean-election",
        "an unclean election on request passes over a replica that has all records",
        "quorum/quorate_quorum/controller/decisions/requested_elections.py",
        """    new = elect(image, topic, old, ev.CAUSE_KIND_ELECTION_ASKED)
    if new is not old:
        return new
    reasons""",
        """    reasons""",
        (f"{REQUESTED}::test_an_unclean_election_loses_nothing_where_there_is",),
    ),
    Mutant(
        "clean-election",
        "an unclean election on request takes a partition away from its leader",
        "quorum/quorate_quorum/controller/decisions/requested_elections.py",
        'if old.leader != NO_LEADER:\n        raise ElectionNotNeededError(f"broker',
        'if False:\n        raise ElectionNotNeededError(f"broker',
        (f"{REQUESTED}::test_an_unclean_election_loses_nothing_where_there_is",),
    ),
    Mutant(
        "relieved-in-sync",
        "a member of the ELR takes over from a drained leader that is alone in the ISR",
        "quorum/quorate_quorum/controller/decisions/requested_elections.py",
        "chosen = leader_among(image, old, old.isr)",
        "chosen = leader_among(image, old, (*old.isr, *old.elr))",
        (
            f"{DRAIN_TESTS}::test_a_drained_leader_alone_in_the_isr_is_not_relieved_by_the_elr",
            f"{DRAIN_TESTS}::test_no_election_or_drain_takes_a_leadership_out_of_the_isr",
        ),
    ),
    Mutant(
        "moves-end-in-sync",
        "a move ends when one target is in the ISR",
        "quorum/quorate_quorum/controller/decisions/partitions.py",
        "not set(target) <= set(old.isr)",
        "not set(target) & set(old.isr)",
        (f"{REASSIGNMENT_TESTS}::test_a_move_adds_waits_and_removes",),
    ),
    Mutant(
        "moves-end-in-sync",
        "a move ends although none of its targets may lead",
        "quorum/quorate_quorum/controller/decisions/partitions.py",
        """        if leader == NO_LEADER:
            return old
    return moved(image, topic, old, isr=target""",
        """    return moved(image, topic, old, isr=target""",
        (f"{REASSIGNMENT_TESTS}::test_a_move_whose_targets_may_not_lead_waits",),
    ),
    Mutant(
        "removed-ends-the-epoch",
        "the leader epoch goes on although a replica is removed",
        "quorum/quorate_quorum/controller/decisions/partitions.py",
        "leader != old.leader or not set(old.broker_ids) <= now.broker_ids",
        "leader != old.leader",
        (
            f"{REASSIGNMENT_TESTS}"
            "::test_a_leader_that_stays_leads_in_a_new_epoch_when_a_replica_is_removed",
        ),
    ),
    Mutant(
        "moves-end-in-sync",
        "an election does not end a move",
        "quorum/quorate_quorum/controller/decisions/sweep.py",
        "ended = completed(image, topic, state)",
        "ended = state",
        (f"{REASSIGNMENT_TESTS}::test_an_election_of_the_only_target_ends_a_move",),
    ),
    Mutant(
        "in-sync-unthrottled",
        "a throttle holds a replica for which the high watermark waits",
        "broker/quorate_broker/replication/follower_positions.py",
        "        if self.is_in_sync:\n            # The high watermark",
        "        if False:\n            # The high watermark",
        (
            "tests/simulation/test_throttles.py"
            "::test_a_replica_is_free_as_soon_as_the_leader_proposes_it_for_the_isr",
        ),
    ),
    Mutant(
        "in-sync-unthrottled",
        "a replica in the ISR has a throttle",
        "broker/quorate_broker/replication/throttle.py",
        "    if follower in state.isr:\n        return None\n",
        "",
        (
            "tests/unit/quorate_broker/replication/test_throttled_rates.py"
            "::test_a_replica_in_the_isr_has_no_throttle",
        ),
    ),
    Mutant(
        "own-commits",
        "a commit of one thread takes the records of all threads for done",
        "clients/quorate/consumer/group/commits.py",
        "self.hands.settle(only)",
        "self.hands.settle()",
        (
            "tests/unit/quorate/sync/test_clients.py"
            "::test_a_commit_of_one_thread_leaves_out_what_another_has_in_hand",
        ),
    ),
    Mutant(
        "moves-keep-one",
        "a cancellation drops the only replica in sync",
        REASSIGNMENT,
        "    if dropped:\n        _check_dropped",
        "    if False:\n        _check_dropped",
        (f"{REASSIGNMENT_TESTS}::test_the_only_replicas_in_sync_are_never_dropped",),
    ),
    Mutant(
        "moves-keep-one",
        "a replica that is alive is dropped for one that is fenced and not swept yet",
        REASSIGNMENT,
        "must_live = not set(complete).isdisjoint(dropped)",
        "must_live = False",
        (
            f"{UNSWEPT_MOVES}"
            "::test_a_replica_in_sync_is_not_dropped_for_one_that_is_away_and_not_swept_yet",
            f"{UNSWEPT_MOVES}::test_a_replica_in_sync_is_dropped_for_one_of_the_elr_that_is_alive",
        ),
    ),
    Mutant(
        "moves-keep-one",
        "a member counts that has come back with a loss and is not swept yet",
        REASSIGNMENT,
        "(not must_live and is_lossless(image, topic, old, b))",
        "not must_live",
        (f"{UNSWEPT_MOVES}::test_no_replica_is_dropped_while_all_that_had_all_may_have_lost_it",),
    ),
    Mutant(
        "moves-keep-one",
        "replicas are dropped while none surely has all records",
        REASSIGNMENT,
        "    if not complete:\n",
        "    if not complete:\n        return\n    if False:\n",
        (f"{UNSWEPT_MOVES}::test_no_replica_is_dropped_while_all_that_had_all_may_have_lost_it",),
    ),
    Mutant(
        "moves-end-in-sync",
        "a move ends on a target that is fenced, or came back with a loss, before its sweep",
        "quorum/quorate_quorum/controller/decisions/partitions.py",
        "if not all(image.is_live(old, broker_id) for broker_id in target):",
        "if False:",
        (f"{UNSWEPT_MOVES}::test_a_move_does_not_end_on_a_member_that_is_away_and_not_swept_yet",),
    ),
    Mutant(
        "moves-keep-one",
        "a target that only the older move wanted is forgotten as an original replica",
        REASSIGNMENT,
        "    original = old.before\n    removing",
        "    original = old.broker_ids\n    removing",
        (
            f"{REASSIGNMENT_TESTS}"
            "::test_a_new_target_replaces_the_old_one_and_drops_what_only_that_wanted",
        ),
    ),
    Mutant(
        "owner-file",
        "a log that does not say whose it is is taken for that of the topic made again",
        "broker/quorate_broker/files/replica_files.py",
        "if metadata is None and is_noted:",
        "if metadata is None:",
        (
            "tests/simulation/test_cluster_damage.py"
            "::test_the_log_of_a_deleted_topic_without_owner_file_is_not_that_of_its_successor",
        ),
    ),
    Mutant(
        "lossy-election-waits",
        "the first lossy replica is elected before those that had left the ISR are back",
        "quorum/quorate_quorum/controller/decisions/lossy_elections.py",
        "all(b in back for b in partition.broker_ids)",
        "all(b in back for b in partition.last_isr)",
        (
            "tests/unit/quorate_quorum/controller/test_partitions.py"
            "::test_a_replica_that_had_left_the_isr_is_waited_for_too",
        ),
    ),
    Mutant(
        "lossy-election-waits",
        "a replica whose log is being repaired is passed over after seconds",
        "quorum/quorate_quorum/controller/decisions/lossy_elections.py",
        "if not all(waited and waiting.is_hopeless(broker, now_ms) for broker in silent):",
        "if not all(waiting.is_hopeless(broker, now_ms) for broker in silent):",
        (
            "tests/unit/quorate_quorum/controller/test_partitions.py"
            "::test_a_question_is_asked_again_and_at_last_done_without",
        ),
    ),
    Mutant(
        "log-chain",
        "a log that has lost its first segments is taken for one whose start has moved",
        f"{LOG_ROOM}/recovery.py",
        "if first > max(known, checkpoints.moving_to):",
        "if False:",
        (f"{LOG_CHAIN}::test_a_log_without_its_first_segments_tells_where_it_had_begun",),
    ),
    Mutant(
        "log-chain",
        "a gap between two closed segments is passed over",
        f"{LOG_ROOM}/chain.py",
        "if end == next_base:",
        "if end <= next_base:",
        (f"{LOG_CHAIN}::test_a_segment_that_is_gone_from_the_middle_is_corruption",),
    ),
    Mutant(
        "log-chain",
        "segments go before the log's start has moved durably",
        f"{LOG_ROOM}/cutter.py",
        "            await self._checkpoints.move_start(offset)\n        except",
        "            pass\n        except",
        (f"{LOG_CHAIN}::test_a_start_that_moved_is_no_loss_wherever_a_crash_interrupts_it",),
    ),
    Mutant(
        "start-durable-first",
        "what lies below the new start of a log may be lost by a power loss, and its end with it",
        f"{LOG_ROOM}/cutter.py",
        "        await self._syncer.sync_to(offset)\n",
        "",
        (f"{LOG_START}::test_a_power_loss_leaves_no_log_that_ends_below_its_start",),
    ),
    Mutant(
        "start-durable-first",
        "a restart forgets where the log begins",
        f"{LOG_ROOM}/recovery.py",
        "extent.start = max(first, known)",
        "extent.start = first",
        (f"{LOG_START}::test_the_start_stays_where_it_was_moved_and_whole_segments_below_it_go",),
    ),
    Mutant(
        "retention-below-high-watermark",
        "a closed segment is deleted whose records are not all committed",
        "broker/quorate_broker/retention/policy.py",
        "segment.end_offset <= high_watermark for",
        "segment.base_offset <= high_watermark for",
        (f"{RETENTION}::test_a_segment_with_a_record_above_the_high_watermark_stays",),
    ),
    Mutant(
        "retention-below-high-watermark",
        "a follower moves its start above the records that it knows to be committed",
        "broker/quorate_broker/replica/follower_replica.py",
        "self._log.log_start_offset < log_start_offset <= self.machine.high_watermark",
        "self._log.log_start_offset < log_start_offset",
        (f"{FOLLOWED_START}::test_a_follower_keeps_what_it_does_not_know_to_be_committed",),
    ),
    Mutant(
        "noted-before-told",
        "a leader with a bad batch resigns before its disk says that the log is corrupt",
        "broker/quorate_broker/replica/partition.py",
        "return resignation if self.damage.is_noted else None",
        "return resignation",
        (f"{DAMAGED}::test_a_leader_that_can_not_note_its_damage_does_not_resign",),
    ),
    Mutant(
        "noted-before-told",
        "the only copy of a damaged log is noted as corrupt, and cut at the next start",
        "broker/quorate_broker/replica/partition.py",
        "self.damage.keep_note(is_wanted=has_others)",
        "self.damage.keep_note(is_wanted=True)",
        (f"{DAMAGED}::test_the_only_copy_of_a_damaged_log_is_not_noted_as_corrupt",),
    ),
    Mutant(
        "noted-before-told",
        "a damaged leader without a successor is cut at its bad batch",
        RECONCILER,
        "is_led_elsewhere = state.leader not in (self._broker_id, NO_LEADER)",
        "is_led_elsewhere = state.leader != self._broker_id",
        (
            f"{DAMAGED}::test_a_damaged_leader_that_nobody_replaced_keeps_its_log",
            f"{LOSSY_CLUSTER}"
            "::test_a_damaged_only_copy_that_is_fenced_for_a_moment_loses_nothing_more",
        ),
    ),
    Mutant(
        "noted-before-told",
        "a replica that is found corrupt in use is told before it is noted",
        REPAIRS,
        "                await partition.log.damage.note_corrupt()\n",
        "                pass\n",
        (
            "tests/unit/quorate_broker/replica/test_damage.py"
            "::test_a_corrupt_follower_is_noted_on_the_disk_before_it_is_told",
        ),
    ),
    Mutant(
        "noted-before-told",
        "a log that was found corrupt in use is trusted by the next start",
        f"{LOG_ROOM}/recovery.py",
        "if self._is_marked_corrupt and not self._config.salvage:",
        "if False:",
        (
            f"{LOG_DAMAGE}::test_a_log_that_was_found_corrupt_in_use_opens_for_salvage_alone",
            f"{LOSSY_CLUSTER}"
            "::test_a_bad_batch_is_not_forgotten_by_a_leader_that_dies_before_the_repair",
        ),
    ),
    Mutant(
        "verified-before-served",
        "bytes that another process wrote are returned as they lie on the disk",
        VERIFIER,
        "if verified.covers(start, stop):",
        "if True:",
        (
            f"{VERIFICATION}::test_no_flipped_bit_of_a_log_reaches_a_reader",
            f"{VERIFICATION}::test_all_but_a_bad_batch_is_read",
        ),
    ),
    Mutant(
        "verified-before-served",
        "the CRC of what is served is not computed",
        VERIFIER,
        "(max(begin, start), stop, True)",
        "(max(begin, start), stop, False)",
        (f"{VERIFICATION}::test_no_flipped_bit_of_a_log_reaches_a_reader",),
    ),
    Mutant(
        "verified-before-served",
        "an offset is not compared with the end of the batch before it",
        VERIFIER,
        "if base < expected or (base > expected and not self.extent.has_gaps):",
        "if False:",
        (f"{VERIFICATION}::test_a_batch_at_another_offset_is_not_served",),
    ),
    Mutant(
        "verified-before-served",
        "a leader_epoch is not compared with the table of epochs",
        VERIFIER,
        "if header.end_offset > start and header.leader_epoch != epoch:",
        "if False:",
        (f"{VERIFICATION}::test_no_flipped_bit_of_a_log_reaches_a_reader",),
    ),
    Mutant(
        "verified-before-served",
        "the checksum file of a compacted segment is not compared",
        VERIFIER,
        "return None if found == crc else",
        "return None if True else",
        (f"{VERIFICATION}::test_an_offset_that_was_changed_within_a_gap_reaches_no_reader",),
    ),
    Mutant(
        "verified-before-served",
        "an index is built from batches that do not follow one another, and then believed",
        f"{LOG_ROOM}/segment.py",
        "if header.base_offset < end:",
        "if False:",
        (f"{VERIFICATION}::test_a_batch_at_another_offset_is_not_served",),
    ),
    Mutant(
        "scrub-finds-all",
        "compaction does not compare a segment with its checksum file, and writes a new one",
        f"{COMPACTION}/cleaning.py",
        "if known is not None and found.result() != known:",
        "if False:",
        (
            f"{COMPACTION_TESTS}/test_cleaning.py"
            "::test_a_changed_offset_or_epoch_of_a_compacted_segment_stops_the_pass",
        ),
    ),
    Mutant(
        "verified-before-served",
        "in a log with gaps the next batch is not asked whether an offset is too high",
        VERIFIER,
        "before_last.fault = await _next_misfit(segment, stop, found.end_offset)",
        "pass",
        (
            f"{VERIFICATION}::test_a_batch_at_another_offset_is_not_served",
            f"{VERIFICATION}::test_no_flipped_bit_of_a_log_reaches_a_reader",
        ),
    ),
    Mutant(
        "verified-before-served",
        "a start believes the offset of the last batch of a log with gaps",
        f"{LOG_ROOM}/scan.py",
        "if self._expected < self._synced < header.end_offset and",
        "if False and",
        (f"{VERIFICATION}::test_a_batch_at_another_offset_is_not_served",),
    ),
    Mutant(
        "scrub-finds-all",
        "the scrub does not compute the CRC of batches",
        SCRUB,
        "chunk = await segment.scan(walk.position, checked=True)",
        "chunk = await segment.scan(walk.position, checked=False)",
        (f"{SCRUBS}::test_any_flipped_bit_of_an_open_log_is_found_or_mended",),
    ),
    Mutant(
        "scrub-finds-all",
        "the scrub does not compare offsets and epochs",
        SCRUB,
        "if misfit is not None:",
        "if False:",
        (f"{SCRUBS}::test_any_flipped_bit_of_an_open_log_is_found_or_mended",),
    ),
    Mutant(
        "scrub-finds-all",
        "the scrub does not compare index files with the batches",
        SCRUB,
        "is_index_bad = walk.index_check is not None and not walk.index_check.result()",
        "is_index_bad = False",
        (f"{SCRUBS}::test_any_flipped_bit_of_an_open_log_is_found_or_mended",),
    ),
    Mutant(
        "scrub-finds-all",
        "the scrub leaves damaged slots as they are",
        SCRUB,
        "for path in await parts.checkpoints.mend():",
        "for path in ():",
        (f"{SCRUBS}::test_a_damaged_slot_has_its_value_again",),
    ),
    Mutant(
        "scrub-finds-all",
        "a bad batch that the scrub finds has no consequence",
        "broker/quorate_broker/replicas/scrubber.py",
        "partition.found_damage(str(error))",
        "pass",
        ("tests/simulation/test_cluster_scrub.py::test_a_bad_batch_that_nobody_reads_is_healed",),
    ),
    Mutant(
        "scrub-finds-all",
        "a follower with a bad batch stays in the ISR",
        "broker/quorate_broker/replica/partition.py",
        'if self.follower is not None:\n            self.take_offline("corrupt", reason)',
        'if False:\n            self.take_offline("corrupt", reason)',
        ("tests/simulation/test_cluster_scrub.py::test_a_bad_batch_that_nobody_reads_is_healed",),
    ),
    Mutant(
        "torn-or-damaged",
        "a batch whose length has changed is a torn write if another torn write follows it",
        f"{LOG_ROOM}/torn.py",
        "last = range(max(left - HEADER_BYTES, 0), left + 1)",
        "last = range(left, left + 1)",
        (
            "tests/unit/quorate_quorum/log/test_damage.py::test_a_changed_length_is_damage_though_a_torn_write_follows",
        ),
    ),
    Mutant(
        "unregister-keeps",
        "a broker is forgotten while replicas lie in its directories, and with it what they lost",
        "quorum/quorate_quorum/controller/decisions/brokers.py",
        "elif replicas := image.replicas_on(broker.id):",
        "elif replicas := 0:",
        (
            "tests/unit/quorate_quorum/controller/test_brokers.py"
            "::test_a_broker_that_holds_replicas_is_not_unregistered_until_they_are_gone",
        ),
    ),
    Mutant(
        "health-of-now",
        "a voter whose process is gone counts as heard until a timeout",
        LEADER,
        "        progress.is_connected = False\n",
        "",
        (
            "tests/unit/quorate_quorum/controller/test_health.py"
            "::test_a_voter_is_heard_while_its_stream_stands_and_for_a_fetch_timeout",
        ),
    ),
    Mutant(
        "rights-of-topics",
        "a caller writes to a topic, or reads one, that it may not use",
        "broker/quorate_broker/operations/partitions.py",
        "    _check(caller, required, found.topic, topic_id)\n",
        "",
        (
            "tests/unit/quorate_broker/operations/test_authorization.py"
            "::test_every_call_refuses_whoever_may_not_and_does_nothing",
        ),
    ),
    Mutant(
        "original-principal",
        "a call that a broker passes on is judged for the broker, not for the principal that asked",
        "quorum/quorate_quorum/controller/driver/service.py",
        "Caller(Principal.parse(request.principal), self._authorizer)",
        'Caller(Principal("User", "ANONYMOUS"), self._authorizer)',
        (
            "tests/unit/quorate_broker/operations/test_authorization.py"
            "::test_a_call_that_is_passed_on_is_judged_at_the_controller_by_its_original_principal",
        ),
    ),
    Mutant(
        "rights-one-by-one",
        "topics that the principal may not create are created with those that it may",
        "quorum/quorate_quorum/controller/driver/admin_calls.py",
        " strict=True) if refusal is None\n",
        " strict=True)\n",
        (
            "tests/unit/quorate_broker/operations/test_authorization.py"
            "::test_topics_of_one_request_are_judged_one_by_one",
        ),
    ),
    Mutant(
        "rights-of-topics",
        "a topic that is named by its id is deleted by a principal that may not delete it",
        "quorum/quorate_quorum/controller/decisions/topics.py",
        "            raise refused\n",
        "            pass\n",
        (
            "tests/unit/quorate_quorum/controller/test_admin_calls.py"
            "::test_a_topic_that_is_proposed_and_not_committed_is_deleted_only_with_the_right",
        ),
    ),
    Mutant(
        "jumps-name-all",
        "a broker that skipped the removal of a topic's last config goes on with that config",
        "quorum/quorate_quorum/metadata/topics.py",
        "        if old.configs != new.configs:\n",
        "        if new.configs:\n",
        (
            "tests/unit/quorate_quorum/metadata/test_fields.py"
            "::test_a_jump_past_the_removal_of_a_topics_last_config_names_the_topic",
        ),
    ),
    Mutant(
        "rights-of-now",
        "a voter may fetch on an open stream though its right was withdrawn",
        "quorum/quorate_quorum/raft/driver/service.py",
        "                    self._check(RAFT_FETCH, peer)\n"
        "                    if stream is None:\n",
        "                    if stream is None:\n"
        "                        self._check(RAFT_FETCH, peer)\n",
        (f"{RIGHTS}::test_a_right_that_is_withdrawn_ends_for_the_streams_that_are_open_too",),
    ),
    Mutant(
        "rights-of-now",
        "a broker may forward on an open stream though its right was withdrawn",
        CONTROLLER_SERVICE,
        "            self._check(FORWARD, peer)  # each time:",
        "            # each time:",
        (f"{RIGHTS}::test_a_right_that_is_withdrawn_ends_for_the_streams_that_are_open_too",),
    ),
    Mutant(
        "rights-of-now",
        "a watcher is told the metadata on an open stream though its right was withdrawn",
        WATCH,
        "        if (refusal := caller.refusal(REQUIRED[WATCH])) is not None:\n",
        "        if (refusal := None) is not None:\n",
        (f"{RIGHTS}::test_a_right_that_is_withdrawn_ends_for_the_streams_that_are_open_too",),
    ),
    Mutant(
        "rights-of-now",
        "a silent broker keeps its heartbeat stream though its right was withdrawn",
        CONTROLLER_SERVICE,
        "                        self._end_if_refused(session, peer)\n"
        "                if session.failure",
        "                if session.failure",
        (
            f"{RIGHTS}"
            "::test_a_heartbeat_stream_is_refused_though_the_broker_says_nothing_more_on_it",
        ),
    ),
    Mutant(
        "refusals-do-nothing",
        "a caller that may not read a topic has the leader suspect its log",
        "broker/quorate_broker/operations/fetch.py",
        "if partition is not None and self._caller.may(REQUIRED, partition.topic):",
        "if partition is not None:",
        (
            "tests/unit/quorate_broker/operations/test_fetch.py"
            "::test_only_a_caller_that_may_read_has_a_suspected_batch_looked_at",
        ),
    ),
    Mutant(
        "hidden-names",
        "a refusal names the topic to a caller that named only its id",
        AUTHORIZER,
        "if self.may(DESCRIBE_TOPIC, topic):",
        "if True:",
        (f"{RIGHTS}::test_a_refusal_by_id_tells_no_name",),
    ),
    Mutant(
        "hidden-names",
        "the metadata of a topic is told by its id to a caller that may not describe it",
        "broker/quorate_broker/operations/metadata.py",
        "if topic is not None and caller.may(TOPICS_REQUIRED, topic.name):",
        "if topic is not None:",
        (f"{RIGHTS}::test_a_refusal_by_id_tells_no_name",),
    ),
    Mutant(
        "short-turns",
        "all tasks that are ready at once run in one turn of the loop",
        "clients/quorate/aio/turns.py",
        "return not self._used or self._used + units <= self._units_a_turn",
        "return True",
        ("tests/unit/quorate/aio/test_turns.py::test_no_turn_does_more_than_its_share",),
    ),
    Mutant(
        "short-turns",
        "a request for many partitions is appended in one turn of the loop",
        "broker/quorate_broker/replica/produce_queue.py",
        "await self._replica.host.append_turns.take(APPEND_UNITS + self._next_count())\n",
        "pass\n",
        (
            "tests/unit/quorate_broker/replica/test_produce_queue.py"
            "::test_batches_for_many_partitions_are_appended_in_several_turns",
        ),
    ),
    Mutant(
        "short-turns",
        "any number of replicas make their first append at the same time",
        "broker/quorate_broker/replica/replica_log.py",
        "        if self.is_noted:\n            return nullcontext()\n",
        "        return nullcontext()\n",
        (
            "tests/unit/quorate_broker/replica/test_produce_queue.py"
            "::test_few_replicas_make_their_first_append_at_the_same_time",
        ),
    ),
    Mutant(
        "start-durable-first",
        "the start is written before its file has a durable name",
        f"{LOG_ROOM}/checkpoints.py",
        "        self._made(await self._start_slot.reserve())\n"
        "        if self._directory.has_unsynced_names:\n"
        "            await self._directory.sync()\n"
        "        await self._start_slot.write(offset, moving_to, sync=True)\n",
        "        await self._start_slot.write(offset, moving_to, sync=True)\n"
        "        await self._directory.sync()\n",
        (f"{START}::test_a_start_that_an_open_went_by_survives_a_power_loss",),
    ),
    Mutant(
        "start-durable-first",
        "an open writes a start again without a sync of the slot that it read",
        f"{LOG_ROOM}/slots.py",
        "            await file.sync()\n            self.is_half_written = False\n",
        "            self.is_half_written = False\n",
        (f"{START}::test_a_start_that_an_open_went_by_survives_a_power_loss",),
    ),
    Mutant(
        "start-durable-first",
        "a segment is removed before the next one has a durable name",
        f"{LOG_ROOM}/cutter.py",
        "            if self._directory.has_unsynced_names:\n",
        "            if False:\n",
        (f"{START}::test_a_segment_is_not_removed_before_the_next_one_has_its_name",),
    ),
    Mutant(
        "cut-stays-cut",
        "an open does not wait until the snapshots of lost records are gone",
        f"{LOG_ROOM}/parts.py",
        "        if await self.snapshots.remove_above(end):\n"
        "            self.directory.changed()\n"
        "            await self.directory.sync()\n",
        "        if await self.snapshots.remove_above(end):\n"
        "            self.directory.changed()\n",
        (
            "tests/unit/quorate_quorum/log/test_observed.py::test_snapshots_of_records_that_are_gone_do_not_come_back",
        ),
    ),
    Mutant(
        "gaps-are-known",
        "a log that was cut back to a start in a gap counts as damaged",
        f"{LOG_ROOM}/extent.py",
        "        return max(offset, self.start) if is_empty else offset\n",
        "        return offset\n",
        (f"{GAPS}::test_a_log_that_was_cut_back_to_a_start_in_a_gap_opens_again",),
    ),
    Mutant(
        "indexes-are-hints",
        "a lookup by time trusts an entry of the index",
        f"{LOG_ROOM}/time_lookup.py",
        "    if not await _has(segment, first, timestamp):\n",
        "    if False:\n",
        (f"{TIME_LOOKUP}::test_no_flipped_bit_of_an_index_hides_a_record_from_a_lookup",),
    ),
    Mutant(
        "repair-is-told",
        "a repair cuts although no loss was accepted",
        "clients/quorate_cli/storage_verify.py",
        "            if accept_loss:\n",
        "            if True:\n",
        (f"{REPAIR}::test_what_would_be_lost_is_told_and_nothing_is_changed",),
    ),
    Mutant(
        "repair-is-told",
        "a repair keeps nothing of what it cuts off",
        "clients/quorate_cli/inspect/repair.py",
        "        for name, position in loss.cut:\n",
        "        for name, position in ():\n",
        (f"{REPAIR}::test_an_accepted_loss_is_cut_kept_aside_and_told_at_the_next_start",),
    ),
    Mutant(
        "repair-is-told",
        "a repaired log looks whole",
        f"{LOG_ROOM}/recovery.py",
        "        await self._directory.mark_durably(DAMAGED_FILE)\n",
        "        pass\n",
        (f"{REPAIR}::test_a_crash_at_any_step_of_a_repair_loses_no_more_and_is_told",),
    ),
    Mutant(
        "synced-before-acknowledged",
        "with flush.on.ack the leader counts what it has not synced",
        LEADER_REPLICA,
        "        if not self._replica.config.flush_on_ack:\n",
        "        if True:\n",
        (f"{POWER_CUTS}::test_what_was_acknowledged_is_read_after_a_power_cut_of_all_nodes",),
    ),
    Mutant(
        "synced-before-acknowledged",
        "with flush.on.ack a follower acknowledges what it has not synced",
        "broker/quorate_broker/replica/replica_log.py",
        "        if self._replica.config.flush_on_ack and not self.is_synced:\n",
        "        if False:\n",
        (f"{POWER_CUTS}::test_what_was_acknowledged_is_read_after_a_power_cut_of_all_nodes",),
    ),
    Mutant(
        "flush-in-time",
        "records that are appended after the first sync by time wait for ever",
        "broker/quorate_broker/replica/replica_log.py",
        "            self.flush_timer.begin()\n",
        "",
        (f"{FLUSH}::test_a_record_that_comes_during_a_sync_is_synced_flush_ms_later",),
    ),
    Mutant(
        "flush-in-time",
        "each record sets the time anew",
        "broker/quorate_broker/replica/flush_timer.py",
        "        if self._since_ms is None:\n            self.look()\n",
        "        self._since_ms = None\n        self.look()\n",
        (f"{FLUSH}::test_a_log_is_synced_flush_ms_after_its_first_unsynced_record_and_not_before",),
    ),
    Mutant(
        "flush-in-time",
        "what an earlier process left unsynced waits for the next record",
        "broker/quorate_broker/replica/partition.py",
        "            self.replica_log.flush_timer.look()\n",
        "",
        (f"{FLUSH}::test_what_an_earlier_process_left_unsynced_is_synced_too",),
    ),
    Mutant(
        "shared-syncs",
        "a call shares the sync that is under way",
        f"{LOG_ROOM}/shared_syncs.py",
        "            del self._next[path]  # later calls need a sync that begins later\n"
        "            try:\n                await self._sync(path)\n            finally:\n",
        "            try:\n                await self._sync(path)\n            finally:\n"
        "                del self._next[path]\n",
        (f"{SHARED_SYNCS}::test_a_hundred_calls_during_a_sync_share_one",),
    ),
    Mutant(
        "shares-of-a-stream",
        "catching up goes first while both kinds wait",
        STREAM_CREDIT,
        "        return self._owed >= catch_up\n",
        "        return True\n",
        (f"{CREDIT}::test_in_sync_chunks_go_first",),
    ),
    Mutant(
        "shares-of-a-stream",
        "in-sync chunks go first however long the others wait",
        STREAM_CREDIT,
        "        return self._owed >= catch_up\n",
        "        return False\n",
        (f"{CREDIT}::test_while_both_kinds_wait_neither_starves",),
    ),
    Mutant(
        "shares-of-a-stream",
        "catching up takes the room of in-sync partitions",
        STREAM_CREDIT,
        "        is_full = self._out[is_in_sync] > 0 and room < max(batch_max, CHUNK_BYTES_MIN)\n",
        "        is_full = most - self.bytes_out < max(batch_max, CHUNK_BYTES_MIN)\n",
        (f"{CREDIT}::test_neither_kind_takes_the_room_of_the_other",),
    ),
    Mutant(
        "shares-of-a-stream",
        "slow partitions keep the room of the others",
        FOLLOWER_POSITIONS,
        "        self.credit.move_late(now_ms)\n",
        "",
        (f"{SLOW_FOLLOWERS}::test_reads_from_a_dead_disk_delay_no_other_partition_on_the_stream",),
    ),
    Mutant(
        "shares-of-a-stream",
        "what a follower holds for a dead disk stops the stream",
        HELD_BYTES,
        "return self.in_time <= most and",
        "return self.size <= most and",
        (f"{SLOW_FOLLOWERS}::test_what_a_dead_disk_holds_stops_no_stream_when_others_begin",),
    ),
    Mutant(
        "shares-of-a-stream",
        "what all streams hold for dead disks has no bound",
        HELD_BYTES,
        "<= most and all_held <= all_max",
        "<= most",
        (
            f"{HELD_BYTES_TESTS}::test_late_bytes_do_not_stop_the_stream_unless_all_streams_hold_too_much",
        ),
    ),
    Mutant(
        "shares-of-a-stream",
        "new streams get the room that the bytes of a dead disk fill",
        HELD_BYTES,
        "return max(0, bytes_max - 2 * excess)",
        "return bytes_max",
        (
            f"{HELD_BYTES_TESTS}::test_the_rooms_of_all_streams_shrink_by_what_late_bytes_hold_too_much",
        ),
    ),
    Mutant(
        "shares-of-a-stream",
        "slow partitions take room beyond their own, and leave the others as much as before",
        STREAM_CREDIT,
        "        most = max(self.bytes_max - excess, WINDOW_BYTES_MIN)\n",
        "        most = self.bytes_max\n",
        (f"{CREDIT}::test_slow_partitions_have_a_bound_too",),
    ),
    Mutant(
        "shares-of-a-stream",
        "slow partitions beyond their room leave the others none",
        STREAM_CREDIT,
        "        most = max(self.bytes_max - excess, WINDOW_BYTES_MIN)\n",
        "        if excess:\n            return -1\n"
        "        most = max(self.bytes_max - excess, WINDOW_BYTES_MIN)\n",
        (f"{CREDIT}::test_slow_partitions_beyond_their_room_leave_some_to_each_kind",),
    ),
    Mutant(
        "shares-of-a-stream",
        "a stuck chunk that does not fit beside the slow ones keeps an ordinary room",
        STREAM_CREDIT,
        "            if now_ms - chunk.since_ms < LATE_MS:\n",
        "            is_full = self._late_out > 0 and chunk.size > self._late_room\n"
        "            if now_ms - chunk.since_ms < LATE_MS or is_full:\n",
        (
            f"{CREDIT}::test_whatever_is_stuck_holds_a_room_only_until_it_counts_as_slow",
            f"{SLOW_FOLLOWERS}::"
            "test_batches_larger_than_a_room_on_a_dead_disk_delay_no_other_partition",
        ),
    ),
    Mutant(
        "shares-of-a-stream",
        "a slow read goes back into an ordinary room",
        STREAM_CREDIT,
        "        chunk.size = size\n        self._enter(chunk)\n",
        "        chunk.size = size\n        chunk.is_late = False\n        self._enter(chunk)\n",
        (f"{CREDIT}::test_a_slow_read_stays_in_the_room_of_slow_partitions",),
    ),
    Mutant(
        "shares-of-a-stream",
        "no room is reserved for a large batch",
        STREAM_CREDIT,
        "        size = max(read_max, batch_max)\n",
        "        size = read_max\n",
        (f"{CREDIT}::test_room_is_reserved_for_a_batch_as_large_as_the_last_ones",),
    ),
    Mutant(
        "shares-of-a-stream",
        "a large batch is reserved for, for ever",
        STREAM_CREDIT,
        "    older = batch_max - batch_max // 8\n",
        "    older = batch_max\n",
        (f"{CREDIT}::test_a_large_batch_is_forgotten_by_and_by",),
    ),
    Mutant(
        "shares-of-a-stream",
        "the window for catching up does not shrink",
        CATCH_UP_WINDOW,
        "            self.size = max(self.size // 2, WINDOW_BYTES_MIN)\n",
        "",
        (f"{WINDOW_TESTS}::test_the_window_shrinks_while_in_sync_chunks_are_late_and_grows_again",),
    ),
    Mutant(
        "shares-of-a-stream",
        "the fastest in-sync chunk ever is the base, also after the link became slower",
        CATCH_UP_WINDOW,
        "        if self._is_clear:\n",
        "        if False:\n",
        (f"{WINDOW_TESTS}::{AFTER_A_RISE}",),
    ),
    Mutant(
        "shares-of-a-stream",
        "catching up never pauses, so an old base stays",
        CATCH_UP_WINDOW,
        "            if now_ms >= self._confirmed_ms + BASE_AGE_MS:\n",
        "            if False:\n",
        (f"{WINDOW_TESTS}::{AFTER_A_RISE}",),
    ),
    Mutant(
        "shares-of-a-stream",
        "the base is raised while chunks that catch up make the queue",
        CATCH_UP_WINDOW,
        "        if self._is_clear:\n",
        "        if True:\n",
        (f"{WINDOW_TESTS}::test_only_chunks_without_catching_up_raise_the_base",),
    ),
    Mutant(
        "shares-of-a-stream",
        "bytes that are in the pipe, of a chunk that counts as slow, raise the base",
        CATCH_UP_WINDOW,
        "        elif self._clear_from_ms is None and sent_ms >= self._idle_from_ms:\n",
        "        elif self._clear_from_ms is None:\n",
        (f"{WINDOW_TESTS}::test_a_chunk_behind_bytes_that_catch_up_does_not_raise_the_base",),
    ),
    Mutant(
        "shares-of-a-stream",
        "a pause for a measurement that never comes has no end",
        CATCH_UP_WINDOW,
        "        return now_ms < min(self._paused_until_ms, self._alone_from_ms)\n",
        "        return now_ms < self._paused_until_ms\n",
        (f"{WINDOW_TESTS}::test_a_pause_ends_though_nothing_is_measured",),
    ),
    Mutant(
        "shares-of-a-stream",
        "a replica outside of the ISR counts as in sync",
        FOLLOWER_POSITIONS,
        "        return self.leader.machine.waits_for(self.replica_id)\n",
        "        return True\n",
        (
            f"{SLOW_FOLLOWERS}::test_a_follower_that_catches_up_delays_its_in_sync_partitions_little",
        ),
    ),
    Mutant(
        "late-chunks",
        "a follower carries out an answer to an older position",
        "broker/quorate_broker/replication/followed.py",
        "            if follower is None or not self._is_answer(fetched):\n",
        "            if follower is None:\n",
        (f"{LATE_CHUNKS}::test_only_the_answer_to_the_last_position_is_carried_out",),
    ),
    Mutant(
        "late-chunks",
        "a follower carries out a chunk of the stream before",
        "broker/quorate_broker/replication/followed.py",
        "        self._position = None\n        self.name()\n",
        "        self.name()\n",
        (f"{LATE_CHUNKS}::test_a_chunk_of_the_old_stream_is_dropped_when_a_new_one_begins",),
    ),
    Mutant(
        "late-chunks",
        "a stream that opens late replaces a newer one",
        REPLICA_SERVICE,
        "            if not other.stream.is_older_than(stream):\n",
        "            if False:\n",
        (f"{LATE_CHUNKS}::test_a_stream_that_opens_late_does_not_replace_a_newer_one",),
    ),
    Mutant(
        "late-chunks",
        "a stream of an older registration acknowledges records",
        REPLICA_SERVICE,
        "if broker.epoch != stream.broker_epoch:",
        "if False:",
        (f"{LATE_CHUNKS}::test_a_stream_of_another_registration_is_refused",),
    ),
    Mutant(
        "late-chunks",
        "a position of another leader epoch acknowledges records",
        "broker/quorate_broker/replica/leader_replica.py",
        "        self._replica.check_epoch(request.leader_epoch, self.leader_epoch)\n"
        "        if stream.replica_id not in",
        "        if stream.replica_id not in",
        (f"{LATE_CHUNKS}::test_a_position_of_another_leader_epoch_acknowledges_nothing",),
    ),
    Mutant(
        "shares-of-a-stream",
        "each stream has the whole limit of the broker",
        STREAM_CREDIT,
        "    return max(bytes_max // (ROOMS * max(streams, 1)), WINDOW_BYTES_MIN)\n",
        "    return max(bytes_max // ROOMS, WINDOW_BYTES_MIN)\n",
        (f"{SLOW_FOLLOWERS}::test_many_followers_that_catch_up_at_once_take_bounded_memory",),
    ),
    Mutant(
        "slow-disk-apart",
        "the threads that wait for a dead device are those of all devices",
        f"{LOG_ROOM}/real_disk.py",
        "        pool = self._pools.get(device)\n",
        "        device = NO_DEVICE\n        pool = self._pools.get(device)\n",
        (
            "tests/unit/quorate_quorum/log/test_devices.py"
            "::test_syncs_that_wait_for_a_dead_device_stop_no_work_on_another",
        ),
    ),
    Mutant(
        "slow-disk-apart",
        "first appends on a slow disk stop those on the others",
        "broker/quorate_broker/replica/replica_log.py",
        "self._replica.host.first_appends[self._replica.directory_id]",
        'self._replica.host.first_appends[b""]',
        (f"{SLOW_FOLLOWERS}::test_first_appends_on_a_dead_disk_stop_none_on_another",),
    ),
    Mutant(
        "patience",
        "a follower gives up a frame that takes long, and asks for it again, for ever",
        "broker/quorate_broker/replication/patience.py",
        "        self.doublings = min(self.doublings + 1, DOUBLINGS_MAX)\n",
        "        pass\n",
        (
            f"{SLOW_FOLLOWERS}"
            "::test_a_congested_follower_leaves_the_isr_after_the_lag_time_and_comes_back",
        ),
    ),
    Mutant(
        "settled-isr",
        "nobody looks at the streams that keep partitions settled",
        "broker/quorate_broker/replication/isr.py",
        "        self._look_at_streams()\n",
        "",
        (f"{ISR_KEEPER}::test_a_follower_that_dies_while_all_is_idle_leaves_the_isr",),
    ),
    Mutant(
        "settled-isr",
        "an append does not begin the checks again",
        "broker/quorate_broker/replica/partition.py",
        "            self.host.isr_unsettled(self)\n\n    def retention_wanted",
        "            pass\n\n    def retention_wanted",
        (f"{ISR_KEEPER}::test_an_append_begins_the_checks_again",),
    ),
    Mutant(
        "settled-isr",
        "a follower's newer stream is not known",
        "broker/quorate_broker/replication/isr.py",
        "        self._streams.clear()\n        for partition in self._led.values():\n",
        "        self._streams.clear()\n        for partition in ():\n",
        (f"{ISR_KEEPER}::test_a_follower_on_a_newer_stream_is_missed_when_that_one_ends",),
    ),
    Mutant(
        "recovery-point",
        "the recovery point moves without a sync of the records below it",
        f"{LOG_ROOM}/recovery_point.py",
        '        await self.sync()\n        async with parts.guard.exclusive("recovery point"):\n',
        "        await parts.checkpoints.note_synced(\n"
        "            parts.extent.end, parts.extent.truncations, is_promise=False, durably=False\n"
        "        )\n"
        '        async with parts.guard.exclusive("recovery point"):\n',
        (f"{RECOVERY_POINT}::test_all_below_the_recovery_point_survives_a_power_loss",),
    ),
    Mutant(
        "recovery-point",
        "records that are appended during a sync count as synced by it",
        f"{LOG_ROOM}/syncer.py",
        "                        target, truncations, is_promise",
        "                        self._extent.end, truncations, is_promise",
        (f"{RECOVERY_POINT}::test_what_is_appended_during_its_sync_is_above_it",),
    ),
    Mutant(
        "no-cut-below",
        "a cut trusts the offsets of the batches beside it",
        "quorum/quorate_quorum/log/cutter.py",
        "if end > end_offset or (end != begins and not has_gaps):",
        "if False:",
        ("tests/unit/quorate_quorum/log/test_cutter.py",),
    ),
    Mutant(
        "readable-batches",
        "a consumer reads a batch with a wrong CRC",
        "clients/quorate/consumer/chunk_reader.py",
        "                check(batch, header)\n",
        "",
        ("tests/unit/quorate/consumer/test_chunk_reader.py",),
    ),
    Mutant(
        "readable-batches",
        "records before the position of a seek are given",
        "clients/quorate/consumer/chunk_reader.py",
        "                if self._block[self._next].offset >= position:\n",
        "                if True:\n",
        ("tests/unit/quorate/consumer/test_chunk_reader.py",),
    ),
    Mutant(
        "readable-batches",
        "a block that was cut short by a bad record ends the batch",
        "clients/quorate/record/decoder.py",
        "        self._left -= len(offsets)\n",
        "        self._left -= limit\n",
        ("tests/unit/quorate/record/test_decoder.py",),
    ),
    Mutant(
        "readable-batches",
        "a consumer believes an epoch above the leader's",
        "clients/quorate/consumer/fetched_batches.py",
        "if not epoch <= header.leader_epoch <= leader_epoch:",
        "if False:",
        ("tests/unit/quorate/consumer/test_fetched_batches.py",),
    ),
    Mutant(
        "damaged-leader-yields",
        "a leader does not compare a batch's epoch with its epochs",
        VERIFIER,
        "if header.end_offset > start and header.leader_epoch != epoch:",
        "if False:",
        (
            "tests/unit/quorate_broker/replica/test_damage.py"
            "::test_a_leader_finds_a_flipped_epoch_in_its_log",
        ),
    ),
    Mutant(
        "owner-file",
        "a log that is closed goes on with the write under way, and makes its directory again",
        f"{LOG_ROOM}/guard.py",
        "        self.is_closed = True\n        async with self._writing:\n            pass\n",
        "        self.is_closed = True\n",
        ("tests/unit/quorate_quorum/log/test_close.py::test_a_close_waits_for_the_roll_under_way",),
    ),
    Mutant(
        "cancelled-tasks-end",
        "a cancelled task goes on if gRPC reports something else in the same moment",
        "clients/quorate/net/grpc_network.py",
        "    if _cancel_requests() > asked_before:\n        raise asyncio.CancelledError",
        "    if False:\n        raise asyncio.CancelledError",
        (
            "tests/unit/quorate/net/test_grpc_network.py"
            "::test_a_task_that_is_cancelled_in_a_call_ends_whatever_grpc_reports",
        ),
    ),
    Mutant(
        "missing-listeners",
        "a broker does not say that a leader has no listener of the client's name",
        "broker/quorate_broker/listeners/grpc/answers.py",
        "        if listener_for(peer, broker) is None\n",
        "        if False\n",
        (
            "tests/unit/quorate_broker/test_server.py"
            "::test_a_broker_without_the_listener_of_a_client_is_not_told_to_it",
        ),
    ),
    Mutant(
        "missing-listeners",
        "a client takes a leader without a listener for it for one that it can reach",
        "clients/quorate/cluster/topic_views.py",
        "from_wire(told.error) if told.error.code else None",
        "None",
        (
            "tests/unit/quorate/cluster/test_cluster.py"
            "::test_a_leader_that_cannot_be_reached_is_logged_once_and_forgotten_when_it_can",
            "tests/unit/quorate/producer/test_waits.py"
            "::test_a_leader_without_the_clients_listener_is_waited_for_and_the_error_says_so",
        ),
    ),
    Mutant(
        "voting-majority",
        "a new voter that installs a snapshot does not note that it may not vote yet",
        FOLLOWER,
        "        if ledger.holds_only_bootstrap:\n",
        "        if False:\n",
        (
            f"{SNAPSHOT_RULES}"
            "::test_a_replaced_disk_that_is_told_of_a_snapshot_gives_no_votes_until_it_caught_up",
        ),
    ),
    Mutant(
        "voting-majority",
        "a new voter does not say in its fetches that it may not vote yet",
        FOLLOWER,
        "            self.round,\n            self.state.hard_state.is_behind,\n",
        "            self.round,\n            False,\n",
        (f"{CHANGES}::test_a_follower_says_with_each_fetch_whether_it_gives_votes",),
    ),
    Mutant(
        "indexes-are-hints",
        "a time index that is loaded is believed without a look at its last batch",
        f"{LOG_ROOM}/segment.py",
        "return bool(at_end) and at_end[0].max_timestamp == timestamp",
        "return True",
        (f"{SEGMENT}::test_no_flipped_bit_of_an_index_changes_the_age_of_a_segment",),
    ),
    Mutant(
        "indexes-are-hints",
        "batches behind a bad time entry are passed over",
        f"{LOG_ROOM}/index.py",
        "                self._forget_offsets_without_times()\n",
        "",
        (f"{SEGMENT}::test_no_flipped_bit_of_an_index_changes_the_age_of_a_segment",),
    ),
    Mutant(
        "last-record-survives",
        "the last record of a key goes with the older ones",
        f"{COMPACTION}/batch_filter.py",
        "elif last_offset_of(key) > base + delta:",
        "elif last_offset_of(key) >= base + delta:",
        (
            f"{COMPACTION_TESTS}/test_cleaning.py::test_a_compacted_log_has_the_same_last_values_as_the_raw_one",
        ),
    ),
    Mutant(
        "epochs-in-batches",
        "the first batch of an epoch goes when it has lost its records",
        f"{COMPACTION}/batch_filter.py",
        "            or self._begins_epoch\n",
        "",
        (
            f"{COMPACTION_TESTS}/test_batch_filter.py::test_the_first_batch_of_each_epoch_stays_wherever_the_log_starts",
        ),
    ),
    Mutant(
        "last-record-survives",
        "a batch with records that the map does not have is passed over",
        f"{COMPACTION}/cleaning.py",
        "                if not _put(offsets, header, batch):\n"
        "                    self._survivors.mark(header.base_offset, header.end_offset)\n",
        "                _put(offsets, header, batch)\n",
        (
            f"{COMPACTION_TESTS}/test_cleaning.py::test_a_batch_with_a_record_without_a_key_or_a_large_one_is_not_passed_over",
        ),
    ),
    Mutant(
        "last-record-survives",
        "a batch that the map can not hold is passed over",
        f"{COMPACTION}/cleaning.py",
        "                    self._survivors.mark(header.base_offset, header.end_offset)\n"
        "                    continue\n",
        "                    continue\n",
        (
            f"{COMPACTION_TESTS}/test_cleaning.py::test_a_batch_with_a_record_without_a_key_or_a_large_one_is_not_passed_over",
        ),
    ),
    Mutant(
        "last-record-survives",
        "the pass looks only into the first offsets of a batch",
        f"{COMPACTION}/survivors.py",
        "stop = (end - 1 - self._first) // self._width + 1\n        return",
        "stop = start + 1\n        return",
        (
            f"{COMPACTION_TESTS}/test_survivors.py::test_a_range_with_a_survivor_is_never_passed_over",
        ),
    ),
    Mutant(
        "last-record-survives",
        "two keys with a part of their hash in common count as one",
        f"{COMPACTION}/offset_map.py",
        "if hashes[at : at + HASH_BYTES] == digest:",
        "if hashes[at] == digest[0]:",
        (
            f"{COMPACTION_TESTS}/test_offset_map.py::test_a_full_map_has_no_room_and_forgets_nothing",
        ),
    ),
    Mutant(
        "compaction-below-high-watermark",
        "a segment above the high watermark is compacted",
        f"{COMPACTION}/plan.py",
        "if segment.end_offset > high_watermark or is_young:",
        "if is_young:",
        (f"{COMPACTION_TESTS}/test_plan.py::test_nothing_above_the_high_watermark_is_compacted",),
    ),
    Mutant(
        "compaction-below-high-watermark",
        "the active segment is compacted",
        f"{COMPACTION}/plan.py",
        "    for segment in segments[:-1]:\n",
        "    for segment in segments:\n",
        (f"{COMPACTION_TESTS}/test_plan.py::test_the_active_segment_is_never_compacted",),
    ),
    Mutant(
        "tombstones-stay",
        "a tombstone goes in the next pass, whatever its horizon",
        f"{COMPACTION}/batch_filter.py",
        "and rules.now_ms >= header.base_timestamp",
        "and rules.now_ms > 0",
        (
            f"{COMPACTION_TESTS}/test_batch_filter.py::test_a_tombstone_goes_after_its_horizon_and_not_before",
        ),
    ),
    Mutant(
        "tombstones-stay",
        "a tombstone gets its horizon though an older record of its key may be left",
        f"{COMPACTION}/batch_filter.py",
        "if header.attributes & record_batch.DELETE_HORIZON or not is_covered:",
        "if header.attributes & record_batch.DELETE_HORIZON:",
        (
            f"{COMPACTION_TESTS}/test_batch_filter.py::test_a_tombstone_that_the_map_does_not_hold_gets_no_horizon",
        ),
    ),
    Mutant(
        "tombstones-stay",
        "a tombstone goes though a batch that stays as it is may hold an older record of its key",
        f"{COMPACTION}/batch_filter.py",
        "            and not self._has_passed_over\n",
        "",
        (
            f"{COMPACTION_TESTS}/test_cleaning.py::test_a_tombstone_stays_behind_a_batch_that_stays_as_it_is",
        ),
    ),
    Mutant(
        "tombstones-stay",
        "tombstones go while a replica is away that may have missed them",
        f"{COMPACTION}/compactor.py",
        "may_drop_tombstones=set(state.broker_ids) <= set(state.isr),",
        "may_drop_tombstones=True,",
        (
            f"{COMPACTION_TESTS}/test_compactor.py::test_tombstones_stay_while_a_replica_is_out_of_the_isr",
        ),
    ),
    Mutant(
        "tombstones-stay",
        "a cut leaves records that no pass has seen below the end of the last one",
        f"{LOG_ROOM}/checkpoints.py",
        "        await self.lower_cleaned(end)\n",
        "",
        (f"{REPLACEMENT}::test_what_was_compacted_is_remembered_until_a_cut",),
    ),
    Mutant(
        "lossy-starts-again",
        "a repaired log of a compacted topic keeps what was before its bad batch",
        "broker/quorate_broker/replicas/repairs.py",
        "if log.damage.is_noted and is_compacted and",
        "if is_compacted and log.log_end_offset < 0 and",
        (
            "tests/unit/quorate_broker/replicas/test_repairs.py::test_a_deleted_key_does_not_come_back_with_a_repaired_replica",
        ),
    ),
    Mutant(
        "lossy-starts-again",
        "the loss is forgotten before the log has begun again",
        "broker/quorate_broker/replicas/repairs.py",
        "partial(self._started_again, partition)\n        elif partition.owed is None:",
        "partial(self._started_again, partition)\n"
        "        if True:\n"
        "            await log.damage.forget_damage()",
        (
            "tests/unit/quorate_broker/replicas/test_repairs.py::test_a_restart_before_a_repaired_log_begins_again_forgets_nothing",
        ),
    ),
    Mutant(
        "lossy-starts-again",
        "a log that is elected before it has begun again removes its records as a follower",
        "broker/quorate_broker/replicas/repairs.py",
        "            partition.replica_log.started_again = None\n            await self._forget",
        "            await self._forget",
        (
            "tests/unit/quorate_broker/replicas/test_repairs.py::test_a_damaged_log_that_is_elected_keeps_what_is_left",
        ),
    ),
    Mutant(
        "lossy-starts-again",
        "a follower's compaction tells nothing of the damage that it meets",
        f"{COMPACTION}/compactor.py",
        "partition.found_damage(report.reason)",
        "pass",
        (
            f"{COMPACTION_TESTS}/test_compactor.py::test_a_follower_whose_pass_meets_a_damaged_batch_is_repaired",
        ),
    ),
    Mutant(
        "old-or-new",
        "old segments go before the new one is durable under its name",
        f"{LOG_ROOM}/replacement.py",
        "        await self._directory.sync()\n        await finish(",
        "        await finish(",
        (f"{REPLACEMENT}::test_a_crash_at_every_step_leaves_the_old_or_the_new",),
    ),
    Mutant(
        "old-or-new",
        "an open does not finish what a crash interrupted",
        f"{LOG_ROOM}/replacement.py",
        "        await finish(directory, new, bases)\n",
        "",
        (f"{REPLACEMENT}::test_a_crash_at_every_step_leaves_the_old_or_the_new",),
    ),
    Mutant(
        "gaps-are-known",
        "any log may have gaps",
        f"{LOG_ROOM}/scan.py",
        "if offset < self._expected or (offset > self._expected and not self._extent.has_gaps):",
        "if offset < self._expected:",
        (f"{GAPS}::test_a_gap_in_a_log_without_the_marker_is_damage",),
    ),
    Mutant(
        "gaps-are-known",
        "a follower takes gaps from any leader",
        "broker/quorate_broker/replica/checks.py",
        "is_apart = header.base_offset > offset and not has_gaps",
        "is_apart = False",
        (
            "tests/unit/quorate_broker/replica/test_checks.py::test_a_follower_takes_gaps_only_from_a_leader_whose_log_is_compacted",
        ),
    ),
    Mutant(
        "answers-after-commit",
        "what a step decided leaves at once",
        f"{GROUPS}/step_log.py",
        "        if not self._batches:\n            leave()",
        "        if self._batches is not None:\n            leave()",
        (f"{SHARD}::test_an_answer_leaves_after_its_records_are_committed",),
    ),
    Mutant(
        "answers-after-commit",
        "an answer without records waits for nothing",
        f"{GROUPS}/step_log.py",
        "        if not self._batches:\n            leave()",
        "        if not records:\n            leave()",
        (f"{SHARD}::test_an_answer_without_records_waits_for_the_records_before_it",),
    ),
    Mutant(
        "answers-after-commit",
        "a gathered step leaves with the batch before its own",
        f"{GROUPS}/step_log.py",
        "        self._batches[-1].leaving.append(leave)",
        "        self._batches[0].leaving.append(leave)",
        (f"{SHARD}::test_a_gathered_step_leaves_after_its_own_commit",),
    ),
    Mutant(
        "steps-are-gathered",
        "each step is a batch of its own",
        f"{GROUPS}/step_log.py",
        "        if self._open is not None and self._batches[0] is self._open:",
        "        if self._open is not None:",
        (f"{SHARD}::test_steps_that_come_while_a_batch_waits_for_its_commit_share_the_next_batch",),
    ),
    Mutant(
        "steps-are-gathered",
        "steps are gathered into a batch of any size",
        f"{GROUPS}/step_log.py",
        "        if self._open is not None and self._open.records.size + size > BATCH_BYTES_MAX:",
        "        if self._open is None and size < 0:",
        (f"{SHARD}::test_a_large_batch_waits_for_none_and_no_step_makes_it_too_large",),
    ),
    Mutant(
        "steps-build-on-steps",
        "a batch is written though one before it was refused",
        "broker/quorate_broker/replica/produce_queue.py",
        "            entry.chain.check()",
        "            pass",
        (f"{SHARD}::test_no_batch_is_written_after_one_that_was_refused",),
    ),
    Mutant(
        "dropped-with-its-batch",
        "a machine whose batch was refused goes on",
        f"{GROUPS}/step_log.py",
        "            self.end()\n            self._failed(error)",
        "            batch.leaving.clear()",
        (f"{SHARD}::test_what_a_machine_decided_is_dropped_with_a_refused_batch",),
    ),
    Mutant(
        "loaded-when-committed",
        "a new leader loads what is not committed yet",
        f"{GROUPS}/shard.py",
        "        while self.leader.machine.high_watermark < end and not self.leader.is_over:",
        "        while self.is_over:",
        (f"{SHARD}::test_a_new_leader_answers_only_when_all_of_its_log_is_committed",),
    ),
    Mutant(
        "loaded-when-committed",
        "a reload does not wait for the batch that is being written",
        f"{GROUPS}/shard.py",
        "            await self._old_steps.settled()",
        "            pass",
        (f"{SHARD}::test_a_reload_waits_for_the_batch_that_is_being_written",),
    ),
    Mutant(
        "partition-of-a-group",
        "the sign of the hash is taken away as by Math.abs",
        f"{GROUPS}/partitioning.py",
        "    return (string_hash(group_id) & 0x7FFF_FFFF) % partitions",
        "    return min(string_hash(group_id), 2**32 - string_hash(group_id)) % partitions",
        (
            "tests/unit/quorate_broker/groups/test_partitioning.py::test_the_partition_is_the_hash_without_its_sign_bit",
        ),
    ),
    Mutant(
        "heard-in-its-session",
        "every member is told the interval of the cluster",
        f"{GROUPS}/machine/session.py",
        "return min(most_ms, self.session_timeout_ms // HEARTBEATS_A_SESSION)",
        "return most_ms",
        (
            "tests/unit/quorate_broker/groups/machine/test_membership.py::test_a_member_sends_heartbeats_often_enough_for_its_own_session",
        ),
    ),
    Mutant(
        "costly-patterns-wait",
        "a step matches as many names of a costly pattern as of any other",
        f"{GROUPS}/machine/subscriptions.py",
        "most = min(names, max(work // matches.regexp.programsize, 1))",
        "most = names",
        (
            "tests/unit/quorate_broker/groups/machine/test_patterns.py::test_a_step_matches_little_of_a_costly_pattern",
        ),
    ),
    Mutant(
        "costly-patterns-wait",
        "new topics are matched against all patterns at once",
        f"{GROUPS}/machine/subscriptions.py",
        "            if room < 0:\n",
        "            if self is None:\n",
        (
            "tests/unit/quorate_broker/groups/machine/test_patterns.py::test_new_topics_are_matched_later_if_all_patterns_are_too_much_for_a_step",
        ),
    ),
    Mutant(
        "patterns-by-rights",
        "a pattern matches topics whatever the rights of the member are",
        f"{GROUPS}/machine/subscriptions.py",
        "is_seen = is_matched and self.may_describe(name)",
        "is_seen = is_matched",
        (
            "tests/unit/quorate_broker/groups/machine/test_patterns.py::test_a_pattern_matches_only_topics_that_its_member_may_describe",
        ),
    ),
    Mutant(
        "patterns-by-rights",
        "the coordinator does not learn which principal a member is",
        "broker/quorate_broker/operations/group_members.py",
        "return replace(heartbeat, principal=caller.principal)",
        "return heartbeat",
        (
            "tests/unit/quorate_broker/operations/test_authorization.py::test_a_pattern_of_a_member_matches_only_topics_that_it_may_describe",
        ),
    ),
    Mutant(
        "patterns-by-rights",
        "a new coordinator compares the topics before it knows the rights of all members",
        f"{GROUPS}/machine/consumer_members.py",
        "not (self._assigning.can_see_topics and group.knows_rights)",
        "not self._assigning.can_see_topics",
        (
            "tests/unit/quorate_broker/groups/machine/test_patterns.py::test_a_failover_does_not_show_a_member_what_it_may_not_describe",
        ),
    ),
    Mutant(
        "patterns-by-rights",
        "what was assigned before all members were heard stays",
        f"{GROUPS}/machine/assigning.py",
        "self.was_partial = not self._group.knows_rights",
        "self.was_partial = False",
        (
            "tests/unit/quorate_broker/groups/machine/test_patterns.py::test_what_was_assigned_before_all_members_were_heard_is_assigned_again",
        ),
    ),
    Mutant(
        "commit-of-one-life",
        "a commit takes the newest epoch for each try",
        "clients/quorate/cluster/group_offsets.py",
        "        sender, refused = replace(committer), None\n",
        "        sender, refused = committer, None\n",
        (
            f"{GROUP_TESTS}::test_a_commit_that_began_before_a_removal_does_not_undo_those_of_others",
        ),
    ),
    Mutant(
        "unread-states-end",
        "states wait without a bound for a client that reads nothing",
        f"{GROUPS}/member_stream.py",
        "        if len(self._states) >= WAITING_MAX:\n",
        "        if self.is_over:\n",
        (
            "tests/unit/quorate_broker/groups/test_member_stream.py::test_a_stream_ends_whose_client_does_not_read_what_is_pushed",
        ),
    ),
    Mutant(
        "internal-topics",
        "a producer may write to an internal topic",
        "broker/quorate_broker/operations/produce.py",
        "            refuse_internal(found)\n",
        "",
        (
            "tests/unit/quorate_broker/operations/test_produce.py::test_clients_do_not_write_to_an_internal_topic",
        ),
    ),
    Mutant(
        "internal-topics",
        "a topic may be altered so that it loses offsets",
        "quorum/quorate_quorum/controller/decisions/config_change.py",
        "        _check_internal(topic, wanted)\n",
        "        pass\n",
        (
            "tests/unit/quorate_quorum/controller/test_internal_topics.py::test_configs_without_which_an_internal_topic_cannot_work_are_not_altered",
        ),
    ),
    Mutant(
        "release-before-give",
        "a partition is given while another member has it",
        f"{GROUP_MACHINE}/reconciliation.py",
        "for one in sorted(missing) if is_free(one)",
        "for one in sorted(missing)",
        (f"{MACHINE_MEMBERSHIP}::test_a_partition_is_given_only_after_it_was_given_back",),
    ),
    Mutant(
        "release-before-give",
        "what a member must give back counts as free at once",
        f"{GROUP_MACHINE}/state.py",
        "self.holders.update(dict.fromkeys((*value.assigned, *value.revoking), member_id))",
        "self.holders.update(dict.fromkeys(value.assigned, member_id))",
        (f"{MACHINE_MEMBERSHIP}::test_a_partition_is_given_only_after_it_was_given_back",),
    ),
    Mutant(
        "one-state-at-a-time",
        "a heartbeat that crosses a state counts as the answer to it",
        f"{GROUP_MACHINE}/session.py",
        "return self.echoed == self.number",
        "return True",
        (
            f"{MACHINE_MEMBERSHIP}::test_a_heartbeat_that_crosses_a_new_assignment_gives_nothing_back",
        ),
    ),
    Mutant(
        "one-state-at-a-time",
        "a member gets states that it has not asked for one upon another",
        f"{GROUP_MACHINE}/reconciler.py",
        "if not (current.epoch == JOIN or session.has_echoed) or current.epoch == AWAY_EPOCH:",
        "if current.epoch == AWAY_EPOCH:",
        (f"{MACHINE_MEMBERSHIP}::test_a_member_gets_one_state_at_a_time",),
    ),
    Mutant(
        "polled-states",
        "the answer to a call on another connection counts as read",
        f"{GROUP_MACHINE}/session.py",
        "            self._forget_what_was_said()\n\n",
        "\n",
        (f"{POLLED_MEMBERS}::test_what_is_said_before_an_answer_was_read_gives_nothing_back",),
    ),
    Mutant(
        "polled-states",
        "what was said before an assignment answers it",
        f"{GROUP_MACHINE}/session.py",
        "            self.owned = None\n        self.settle",
        "            pass\n        self.settle",
        (f"{POLLED_MEMBERS}::test_a_heartbeat_that_names_no_partitions_gives_nothing_back",),
    ),
    Mutant(
        "polled-states",
        "a late call of a connection that was given up is taken",
        f"{GROUP_MACHINE}/session.py",
        "return conversation is not None and last is not None and conversation < last",
        "return False",
        (f"{POLLED_MEMBERS}::test_a_call_of_a_connection_that_was_given_up_changes_nothing",),
    ),
    Mutant(
        "polled-states",
        "the state of a member changes while it is not heard",
        f"{GROUP_MACHINE}/reconciler.py",
        "if session is not None and not session.polls:",
        "if session is not None:",
        (f"{POLLED_MEMBERS}::test_its_state_changes_only_while_it_is_heard",),
    ),
    Mutant(
        "polled-states",
        "a join whose answer was lost takes away what the first one gave",
        f"{GROUP_MACHINE}/consumer_members.py",
        "session.has_joined = session.has_stream or session.polls",
        "session.has_joined = session.has_stream",
        (f"{POLLED_MEMBERS}::test_a_join_whose_answer_was_lost_is_answered_again",),
    ),
    Mutant(
        "polled-states",
        "an error that is answered leaves the conversation as it was",
        f"{KAFKA}/consumer_groups.py",
        "        self._errors[client] += 1\n",
        "        self._errors[client] += 0\n",
        (
            f"{KAFKA_TESTS}/test_consumer_groups.py::test_an_error_and_another_connection_begin_another_conversation",
        ),
    ),
    Mutant(
        "freed-is-given-at-once",
        "partitions that were given back wait for a heartbeat of their next owner",
        f"{GROUP_MACHINE}/reconciler.py",
        "            if owner is not None:\n",
        "            if False:\n",
        (f"{MACHINE_MEMBERSHIP}::test_what_was_given_back_is_pushed_to_its_next_owner_at_once",),
    ),
    Mutant(
        "member-epochs-fence",
        "a member of an older epoch goes on with partitions that it has not any more",
        f"{GROUP_MACHINE}/consumer_members.py",
        "if is_last and owned is not None and current.assigned.keys() >= owned:",
        "if is_last:",
        (f"{MACHINE_MEMBERSHIP}::test_the_previous_epoch_with_partitions_that_are_gone_is_fenced",),
    ),
    Mutant(
        "member-epochs-fence",
        "a lost answer costs a member all that it has",
        f"{GROUP_MACHINE}/consumer_members.py",
        "is_last = heartbeat.member_epoch == current.previous_epoch",
        "is_last = False",
        (f"{MACHINE_MEMBERSHIP}::test_a_lost_answer_is_made_good_by_the_previous_epoch",),
    ),
    Mutant(
        "member-epochs-fence",
        "a join that is repeated takes away what the first one gave",
        f"{GROUP_MACHINE}/consumer_protocol.py",
        "elif session is not None and session.has_joined:",
        "elif False and session is not None:",
        (f"{MACHINE_MEMBERSHIP}::test_a_join_that_is_said_twice_on_a_stream_is_answered_twice",),
    ),
    Mutant(
        "silent-members-go",
        "a member that gives nothing back stops the group",
        f"{GROUP_MACHINE}/session.py",
        "        if self.settle_by_ms is not None:\n            due = min",
        "        if False:\n            due = min",
        (f"{MACHINE_MEMBERSHIP}::test_a_member_that_does_not_give_back_in_time_is_removed",),
    ),
    Mutant(
        "silent-members-go",
        "a member whose stream broke stays until its session ends",
        f"{GROUP_MACHINE}/session.py",
        "if self.broken_ms is not None and not is_static:",
        "if False:",
        (f"{MACHINE_MEMBERSHIP}::test_a_member_without_a_stream_is_removed_after_the_grace",),
    ),
    Mutant(
        "silent-members-go",
        "a session never ends",
        f"{GROUP_MACHINE}/session.py",
        "        due = self.expires_ms\n",
        "        due = self.expires_ms + (1 << 40)\n",
        (f"{MACHINE_MEMBERSHIP}::test_a_silent_member_is_removed_when_its_session_ends",),
    ),
    Mutant(
        "standstill-is-forgiven",
        "a coordinator that stood still removes members that it has not heard",
        f"{GROUP_MACHINE}/shard.py",
        "if late_ms < LATE_MS:",
        "if True:",
        (f"{MACHINE_MEMBERSHIP}::test_a_coordinator_that_stood_still_removes_no_member_for_it",),
    ),
    Mutant(
        "left-without-a-trace",
        "the timer of a member that left stays until its session would have ended",
        f"{GROUP_MACHINE}/group.py",
        "        self.shared.timers.forget((self.id, member_id))\n",
        "",
        (
            "tests/unit/quorate_broker/groups/machine/test_timers.py::test_members_that_have_left_leave_no_timers_behind",
        ),
    ),
    Mutant(
        "standstill-is-forgiven",
        "a standstill is forgiven with each part of the timers that were due",
        f"{GROUP_MACHINE}/shard.py",
        "        self._forgiven_ms = now_ms\n",
        "",
        (f"{MACHINE_MEMBERSHIP}::test_a_standstill_is_forgiven_once_though_many_timers_are_due",),
    ),
    Mutant(
        "static-names",
        "a member that found the new coordinator loses its name",
        f"{GROUP_MACHINE}/session.py",
        "        self.has_stream, self.broken_ms, self.awaited_ms = True, None, None\n",
        "        self.has_stream, self.broken_ms = True, None\n",
        (f"{STATIC_MEMBERS}::test_a_static_member_that_found_the_new_coordinator_keeps_its_name",),
    ),
    Mutant(
        "static-names",
        "a second holder of a name takes it from the first",
        f"{GROUP_MACHINE}/consumer_members.py",
        "if not is_classic and not self.group.is_gone(holder, now_ms):",
        "if False:",
        (f"{STATIC_MEMBERS}::test_a_second_holder_of_a_name_is_refused_while_the_first_is_there",),
    ),
    Mutant(
        "static-names",
        "the share of a static member goes to others when it restarts",
        f"{GROUP_MACHINE}/consumer_members.py",
        "turn.write(state, key, TargetMemberValue(target))",
        "turn.write(state, key, TargetMemberValue(frozenset()))",
        (f"{STATIC_MEMBERS}::test_a_restart_within_the_session_moves_nothing",),
    ),
    Mutant(
        "static-names",
        "a broken stream costs a static member its place",
        f"{GROUP_MACHINE}/session.py",
        "if self.broken_ms is not None and not is_static:",
        "if self.broken_ms is not None:",
        (f"{STATIC_MEMBERS}::test_a_broken_stream_alone_costs_a_static_member_nothing",),
    ),
    Mutant(
        "commits-are-fenced",
        "a member commits for partitions of others",
        f"{GROUP_MACHINE}/consumer_rules.py",
        "if since is not None and since <= request.member_epoch:",
        "if since is None or since <= request.member_epoch:",
        (
            f"{COMMITTED_OFFSETS}::test_a_commit_for_a_partition_of_another_member_is_refused_and_the_rest_is_not",
        ),
    ),
    Mutant(
        "commits-are-fenced",
        "a late commit passes because the partition came back",
        f"{GROUP_MACHINE}/consumer_rules.py",
        "if since is not None and since <= request.member_epoch:",
        "if since is not None:",
        (f"{COMMITTED_OFFSETS}::test_a_late_commit_does_not_pass_because_the_partition_came_back",),
    ),
    Mutant(
        "commits-are-fenced",
        "a caller that is no member commits while there are members",
        f"{GROUP_MACHINE}/consumer_rules.py",
        "    elif group.state.members and not request.only_forgets:\n",
        "    elif False:\n",
        (
            f"{COMMITTED_OFFSETS}::test_a_caller_that_is_no_member_commits_only_while_the_group_has_no_members",
        ),
    ),
    Mutant(
        "commits-are-fenced",
        "the offsets of a topic that members read are deleted",
        f"{GROUP_MACHINE}/offsets.py",
        "rules.read_topics() if request.only_forgets else frozenset()",
        "frozenset[str]()",
        (
            f"{COMMITTED_OFFSETS}::test_offsets_of_topics_that_no_member_reads_are_forgotten_while_the_group_has_members",
        ),
    ),
    Mutant(
        "offsets-of-their-topic",
        "a topic made again inherits the offsets of the old one",
        f"{GROUP_MACHINE}/offsets.py",
        "if value is None or value.topic_id != topic_id:",
        "if value is None:",
        (f"{COMMITTED_OFFSETS}::test_a_topic_made_again_does_not_inherit_offsets",),
    ),
    Mutant(
        "offsets-of-their-topic",
        "the offsets of a deleted topic stay",
        f"{GROUP_MACHINE}/offsets.py",
        "if topic is None or topic.id != value.topic_id:",
        "if False:",
        (f"{COMMITTED_OFFSETS}::test_the_offsets_of_a_deleted_topic_are_forgotten",),
    ),
    Mutant(
        "offsets-expire-unused",
        "offsets expire under the members that use them",
        f"{GROUP_MACHINE}/consumer_rules.py",
        "if state.members or state.target.epoch < state.epoch:",
        "if state.target.epoch < state.epoch:",
        (f"{COMMITTED_OFFSETS}::test_offsets_of_a_group_with_members_never_expire",),
    ),
    Mutant(
        "offsets-expire-unused",
        "offsets expire by the time of a target that still knows the members",
        f"{GROUP_MACHINE}/consumer_rules.py",
        "if state.members or state.target.epoch < state.epoch:",
        "if state.members:",
        (
            f"{COMMITTED_OFFSETS}::test_no_offset_expires_before_the_target_of_a_group_whose_members_are_gone",
        ),
    ),
    Mutant(
        "offsets-expire-unused",
        "the time of offsets runs while the group has members",
        f"{GROUP_MACHINE}/offsets.py",
        "if empty_since_ms is None or empty_since_ms > before_ms:",
        "if empty_since_ms is None:",
        (f"{COMMITTED_OFFSETS}::test_the_time_of_offsets_begins_when_the_last_member_is_gone",),
    ),
    Mutant(
        "groups-outlive-coordinators",
        "a new coordinator forgets the assignment",
        f"{GROUP_MACHINE}/state.py",
        "            if member_id not in self.members:\n"
        "                self._set_target(member_id, None)",
        "            if True:\n                self._set_target(member_id, None)",
        (f"{GROUP_FAILOVER}::test_a_new_coordinator_moves_nothing_and_loses_no_offset",),
    ),
    Mutant(
        "groups-outlive-coordinators",
        "a new coordinator takes topics that it has not matched yet for deleted ones",
        f"{GROUP_MACHINE}/consumer_members.py",
        "if metadata is None or not (self._assigning.can_see_topics and group.knows_rights):",
        "if metadata is None or not group.knows_rights:",
        (f"{PATTERNS}::test_a_failover_of_a_group_with_a_pattern_moves_nothing",),
    ),
    Mutant(
        "groups-outlive-coordinators",
        "topics that changed between two coordinators are not seen",
        f"{GROUP_MACHINE}/consumer_members.py",
        "group.has_changed |= metadata.metadata_hash != metadata_hash(group)",
        "pass",
        (f"{PATTERNS}::test_topics_that_were_created_while_there_was_no_coordinator_are_found",),
    ),
    Mutant(
        "group-records-are-kafkas",
        "a partition's epoch is not written as Kafka writes it",
        "broker/quorate_broker/groups/records/values.py",
        "+ tagged({0: int32s(epoch for _, epoch in numbers)})",
        "+ NO_TAGS",
        (f"{GROUP_RECORDS}::test_a_value_has_the_bytes_that_kafka_writes",),
    ),
    Mutant(
        "group-records-are-kafkas",
        "a value of a newer version is read as an older one",
        "broker/quorate_broker/groups/records/wire.py",
        "if not 0 <= version <= newest:",
        "if False:",
        (f"{GROUP_RECORDS}::test_a_value_of_a_newer_version_is_refused_and_not_misread",),
    ),
    Mutant(
        "classic-generations",
        "an old generation is taken for the present one",
        f"{GROUP_MACHINE}/classic/members.py",
        "if request.generation != self._round.generation:",
        "if False:",
        (f"{CLASSIC_ROUNDS}::test_members_of_a_generation_that_is_over_are_told",),
    ),
    Mutant(
        "classic-generations",
        "a member commits while the leader assigns",
        f"{GROUP_MACHINE}/classic/members.py",
        "if self._round.phase is Phase.COMPLETING:",
        "if False:",
        (
            f"{CLASSIC_ROUNDS}::test_offsets_are_committed_by_the_generation_and_without_one_only_in_an_empty_group",
        ),
    ),
    Mutant(
        "classic-generations",
        "a member that lost its static name goes on",
        f"{GROUP_MACHINE}/classic/members.py",
        "if holder is not None and holder != member_id:",
        "if False:",
        (f"{CLASSIC_ROUNDS}::test_a_static_member_that_restarts_moves_nothing",),
    ),
    Mutant(
        "classic-generations",
        "a round does not wait for members that have an id only",
        f"{GROUP_MACHINE}/classic/rebalance.py",
        "not self._pending and all(",
        "all(",
        (f"{CLASSIC_ROUNDS}::test_a_round_ends_only_when_members_that_have_got_an_id_have_come",),
    ),
    Mutant(
        "classic-generations",
        "a member that waits for an answer loses its session",
        f"{GROUP_MACHINE}/classic/protocol.py",
        "elif member is not None and not member.is_awaiting:",
        "elif member is not None:",
        (
            f"{CLASSIC_ROUNDS}::test_a_session_ends_without_heartbeats_but_not_while_the_member_waits",
        ),
    ),
    Mutant(
        "classic-generations",
        "an assignment is not in the log",
        f"{GROUP_MACHINE}/classic/rebalance.py",
        "self._change_phase(Phase.STABLE, turn)",
        "self.phase = Phase.STABLE",
        (f"{CLASSIC_ROUNDS}::test_a_new_coordinator_knows_the_stable_generation",),
    ),
    Mutant(
        "classic-generations",
        "who does not join again stays in the generation",
        f"{GROUP_MACHINE}/classic/protocol.py",
        "        late = self._round.late(turn.now_ms)",
        "        late = list[str]()",
        (f"{CLASSIC_ROUNDS}::test_who_does_not_join_again_is_removed_at_the_rebalance_timeout",),
    ),
    Mutant(
        "offsets-expire-unused",
        "a refused JoinGroup makes a group forget since when it is empty",
        f"{GROUP_MACHINE}/registry.py",
        "            protocol = ClassicProtocol(protocol.group, None, turn.now_ms)\n",
        "            protocol = ClassicProtocol(protocol.group, None, turn.now_ms)\n"
        "            protocol.group.forget_consumer_protocol(turn)\n",
        (
            "tests/unit/quorate_broker/groups/machine/classic/test_bounds.py::"
            "test_offsets_do_not_expire_because_a_member_of_the_other_protocol_came",
        ),
    ),
    Mutant(
        "classic-generations",
        "a member joins a group whose offsets are being deleted",
        f"{GROUP_MACHINE}/registry.py",
        "if group_id in self.deleting:",
        "if False:",
        (
            "tests/unit/quorate_broker/groups/machine/classic/test_bounds.py::"
            "test_a_deletion_in_steps_goes_on_by_itself_and_nobody_joins_meanwhile",
        ),
    ),
    Mutant(
        "mixed-groups",
        "what classic members have is free when the group takes others",
        f"{GROUP_MACHINE}/conversion.py",
        "dict.fromkeys(sorted(share), epoch))",
        "{})",
        (
            f"{MIXED_GROUPS}::test_a_partition_is_given_only_after_a_classic_member_has_given_it_back",
        ),
    ),
    Mutant(
        "mixed-groups",
        "a classic member that joins has given all back",
        f"{GROUP_MACHINE}/mixed.py",
        "owned=frozenset() if epoch == JOIN else owned,",
        "owned=frozenset(),",
        (
            f"{MIXED_GROUPS}::test_a_partition_is_given_only_after_a_classic_member_has_given_it_back",
        ),
    ),
    Mutant(
        "mixed-groups",
        "a partition that two classic members have is taken over",
        f"{GROUP_MACHINE}/conversion.py",
        "        if given & share:\n",
        "        if False:\n",
        (f"{MIXED_GROUPS}::test_a_partition_that_a_leader_gave_to_two_members_is_not_taken_over",),
    ),
    Mutant(
        "mixed-groups",
        "what classic members have of a topic that is not seen yet is free when it is seen",
        f"{GROUP_MACHINE}/conversion.py",
        "        group.set_unseen(member.member_id, unseen[member.member_id])\n",
        "",
        (
            f"{MIXED_GROUPS}::test_a_partition_of_a_topic_that_the_coordinator_does_not_see_yet_keeps_its_owner",
        ),
    ),
    Mutant(
        "mixed-groups",
        "a classic member of an older generation commits",
        f"{GROUP_MACHINE}/consumer_rules.py",
        "if self._is_classic(request.member_id) and request.member_epoch != epoch:",
        "if False:",
        (
            f"{MIXED_GROUPS}::test_a_classic_member_commits_in_its_generation_for_its_own_partitions",
        ),
    ),
    Mutant(
        "mixed-groups",
        "a classic member may take as long to join again as it likes",
        f"{GROUP_MACHINE}/mixed.py",
        "        if session.settle_by_ms is None:\n",
        "        if False:\n",
        (f"{MIXED_GROUPS}::test_a_classic_member_that_does_not_join_again_in_time_is_removed",),
    ),
    Mutant(
        "mixed-groups",
        "a group of classic members alone stays as it is",
        f"{GROUP_MACHINE}/registry.py",
        "protocol = to_classic(protocol, turn) or protocol",
        "pass",
        (f"{MIXED_GROUPS}::test_the_group_is_classic_again_when_the_last_other_member_has_left",),
    ),
    Mutant(
        "proposals-are-checked",
        "a partition is given to two members",
        f"{GROUP_MACHINE}/target.py",
        "            if other != member_id:\n",
        "            if False:\n",
        (f"{CLIENT_ASSIGNOR}::test_nonsense_is_refused_and_the_group_goes_on_with_the_default",),
    ),
    Mutant(
        "proposals-are-checked",
        "a member that does not answer stops the group",
        f"{GROUP_MACHINE}/assigning.py",
        "is_over = now_ms >= self._answer_by_ms",
        "is_over = False",
        (f"{CLIENT_ASSIGNOR}::test_a_member_that_does_not_answer_holds_nobody_up",),
    ),
    Mutant(
        "proposals-are-checked",
        "a static member that came back during a task gets nothing",
        f"{GROUP_MACHINE}/consumer_members.py",
        "        if self._assigning.asked is not None:\n",
        "        if False:\n",
        (
            f"{CLIENT_ASSIGNOR}::test_a_static_member_that_comes_back_during_a_task_is_in_the_next_one",
        ),
    ),
    Mutant(
        "patterns-are-bounded",
        "a pattern matches as many topics as there are",
        f"{GROUP_MACHINE}/subscriptions.py",
        "return len(self.matched(view)) > self._config.subscription_topics_max",
        "return False",
        (
            f"{PATTERNS}::test_a_pattern_that_matches_too_many_topics_costs_its_members_their_place_alone",
        ),
    ),
    Mutant(
        "patterns-are-bounded",
        "a pattern finds internal topics",
        f"{GROUP_MACHINE}/subscriptions.py",
        "            name not in INTERNAL_TOPICS\n            and topics",
        "            topics",
        (f"{PATTERNS}::test_a_pattern_matches_whole_names_of_topics_that_are_not_internal",),
    ),
    Mutant(
        "sticky-assignments",
        "partitions move that need not move",
        "broker/quorate_broker/groups/assignors/uniform.py",
        "        self._keep(one for one in held if one not in self._given)\n",
        "",
        (f"{ASSIGNORS}::test_a_member_that_joins_moves_no_more_than_its_share",),
    ),
    Mutant(
        "sticky-assignments",
        "one member gets all that is left over",
        "broker/quorate_broker/groups/assignors/uniform.py",
        "return size < self._quota or (size == self._quota and self._extra > 0)",
        "return True",
        (f"{ASSIGNORS}::test_equal_subscriptions_get_equal_shares",),
    ),
    Mutant(
        "salvage-doubts-both",
        "of two offsets that contradict each other, a salvage keeps the batch of the first",
        SCAN,
        "return (is_behind and self._extent.has_gaps) or (is_older and self._began_epoch)",
        "return is_older and self._began_epoch",
        (f"{GAPS}::test_a_salvage_keeps_no_batch_whose_offset_was_raised",),
    ),
    Mutant(
        "salvage-doubts-both",
        "a salvage keeps a batch that began an epoch which the next batch denies",
        SCAN,
        "return (is_behind and self._extent.has_gaps) or (is_older and self._began_epoch)",
        "return is_behind and self._extent.has_gaps",
        (f"{LOG_DAMAGE}::test_a_salvage_keeps_no_batch_whose_epoch_was_raised",),
    ),
    Mutant(
        "salvage-doubts-both",
        "a salvage gives up a good batch before one whose epoch was lowered",
        SCAN,
        "(is_older and self._began_epoch)",
        "is_older",
        (f"{LOG_DAMAGE}::test_a_salvage_keeps_the_batches_before_one_whose_epoch_was_lowered",),
    ),
    Mutant(
        "salvage-doubts-both",
        "a salvage does not ask the synced end whether the last offset is too high",
        f"{LOG_ROOM}/recovery.py",
        "synced = max(self._given_up, known_end)",
        "synced = known_end",
        (f"{GAPS}::test_a_salvage_keeps_no_batch_whose_offset_was_raised",),
    ),
    Mutant(
        "witness-goes-last",
        "a salvage gives the synced end up before it has looked at a batch",
        f"{LOG_ROOM}/recovery.py",
        "            self._given_up = synced[0]\n",
        "            self._given_up = synced[0]\n"
        "            await self._checkpoints.synced_slot.write(0, -1, sync=True)\n",
        (f"{GAPS}::test_a_salvage_that_a_crash_interrupts_is_done_again",),
    ),
    Mutant(
        "witness-goes-last",
        "the synced end is given up before the cut is durable",
        f"{LOG_ROOM}/recovery.py",
        "            await self._parts.sync_cut()\n",
        "            pass\n",
        (f"{GAPS}::test_a_salvage_that_a_crash_interrupts_is_done_again",),
    ),
    Mutant(
        "bad-batch-costs-itself",
        "an index that can't be built again is gone",
        f"{LOG_ROOM}/segment.py",
        "        index, cuts = self.index, self._completion.cuts\n",
        "        await self.remove_index_files()\n"
        "        self.index = index = None\n        cuts = self._completion.cuts\n",
        (f"{LOG_READER}::test_a_bad_batch_that_the_index_names_costs_no_other_batch",),
    ),
    Mutant(
        "future-is-not-young",
        "a record of the far future keeps its log from compaction",
        f"{COMPACTION}/plan.py",
        "    if segment.max_timestamp > now_ms + lags.future_max_ms:\n",
        "    if False:\n",
        (
            f"{COMPACTION_TESTS}/test_plan.py"
            "::test_a_record_of_the_far_future_does_not_keep_the_log_from_compaction_for_ever",
        ),
    ),
    Mutant(
        "future-is-not-young",
        "a record of the far future keeps its log from retention",
        "broker/quorate_broker/retention/policy.py",
        "    if 0 <= segment.max_timestamp <= latest_ms:\n",
        "    if 0 <= segment.max_timestamp:\n",
        (f"{RETENTION}::test_a_record_of_the_far_future_does_not_keep_the_log_for_ever",),
    ),
    Mutant(
        "records-tell-their-time",
        "the leader believes the max_timestamp of a producer",
        "broker/quorate_broker/replica/checks.py",
        "        if latest_ms != header.max_timestamp:\n",
        "        if False:\n",
        (f"{CHECKS}::test_the_latest_time_that_a_batch_says_is_that_of_its_records",),
    ),
    Mutant(
        "records-tell-their-time",
        "the times of records that are checked together do not count",
        "clients/quorate/record/walks.py",
        "            latest = max(latest, _latest(alike.times, alike.later))\n",
        "            latest = max(latest, 0)\n",
        (f"{WALKS}::test_the_latest_time_is_found_in_records_of_any_layout",),
    ),
    Mutant(
        "records-tell-their-time",
        "times that do not grow are taken for times that do",
        "clients/quorate/record/walks.py",
        "    if high.count(top) != len(high) - begin:\n",
        "    if False:\n",
        (f"{WALKS}::test_the_latest_time_is_found_in_records_of_any_layout",),
    ),
    Mutant(
        "verified-before-served",
        "a lookup by time believes the headers that it looks at",
        f"{LOG_ROOM}/time_lookup.py",
        "            good = await verifier.good_end(segment, first, position, chunk.position)\n",
        "            good = chunk.position\n",
        (f"{TIME_LOOKUP}::test_a_flipped_bit_in_a_header_gives_no_wrong_offset",),
    ),
    Mutant(
        "verified-before-served",
        "the verifier reads on above the end of a segment that was cut meanwhile",
        VERIFIER,
        "        if chunk.position == position:\n            return  #",
        "        if chunk.position == position:\n"
        '            assert False, "it would read for ever"  #',
        (f"{VERIFICATION}::test_a_read_whose_bytes_are_cut_while_they_are_verified_ends",),
    ),
    Mutant(
        "begun-writes-end",
        "a stop of the compactor interrupts its write into a log",
        f"{COMPACTION}/compactor.py",
        'await asyncio.shield(partition.replica_log.start(write(), "compaction"))',
        "await write()",
        (
            f"{COMPACTION_TESTS}/test_compactor.py"
            "::test_a_stop_does_not_interrupt_a_write_into_a_log",
        ),
    ),
    Mutant(
        "begun-writes-end",
        "no room for a file of compaction takes the replica offline",
        f"{COMPACTION}/compactor.py",
        "            except TryAgainError as error:\n                waits.append(error)\n",
        "            except ZeroDivisionError as error:\n"
        "                waits.append(TryAgainError(str(error)))\n",
        (
            f"{COMPACTION_TESTS}/test_compactor.py"
            "::test_no_room_for_a_checksum_file_leaves_the_replica_in_use",
        ),
    ),
    Mutant(
        "damaged-leader-yields",
        "a reader of a leader that gave way during the read gets an error of the disk",
        LEADER_REPLICA,
        "raise self._replica.not_leader() from error  # the reign ended during the read",
        "pass",
        (
            f"{DAMAGED}"
            "::test_a_reader_of_a_leader_that_gave_way_during_the_read_is_sent_to_the_next",
        ),
    ),
    Mutant(
        "failed-sync-is-final",
        "a sync counts although a sync of the same file failed beside it",
        REAL_DISK,
        "        if self._settling is not None:\n            await asyncio.wait([self._settling])\n"
        "        self._check_syncs()\n",
        "",
        (f"{DESCRIPTORS}::test_a_sync_beside_a_failed_sync_before_a_close_fails",),
    ),
    Mutant(
        "failed-sync-is-final",
        "a sync does not wait for a sync of the same file that may get its error",
        REAL_DISK,
        "            await asyncio.wait([self._settling])\n",
        "            pass\n",
        (f"{DESCRIPTORS}::test_a_sync_beside_a_failed_sync_before_a_close_fails",),
    ),
    Mutant(
        "failed-sync-is-final",
        "a sync of what is synced does not wait for a sync that may get the error",
        REAL_DISK,
        "            await self._settled()\n            return\n",
        "            return\n",
        (f"{DESCRIPTORS}::test_a_sync_of_what_is_synced_waits_for_the_settle_under_way",),
    ),
    Mutant(
        "synced-once",
        "a file that changed since its last sync counts as synced",
        REAL_DISK,
        "        if self._was_synced and self.is_synced:\n",
        "        if self._was_synced:\n",
        (
            f"{DESCRIPTORS}::test_a_file_that_was_synced_before_it_was_closed_is_not_opened_to_be_synced",
        ),
    ),
    Mutant(
        "synced-once",
        "what the last process wrote counts as synced",
        REAL_DISK,
        "        if self._was_synced and self.is_synced:\n",
        "        if self.is_synced:\n",
        (f"{DESCRIPTORS}::test_a_file_that_this_process_has_not_synced_is_synced",),
    ),
    Mutant(
        "synced-once",
        "what is appended after a log was prepared for the stop is not synced",
        f"{LOG_ROOM}/recovery_point.py",
        "        if self._is_changed:\n            await self.sync()\n",
        "",
        (
            "tests/unit/quorate_quorum/log/test_close.py::test_a_log_that_was_appended_to_after_it_was_prepared_is_closed_durably",
        ),
    ),
    Mutant(
        "shared-syncs",
        "the entry of a sync that waits for its turn goes with the sync before it",
        f"{LOG_ROOM}/shared_syncs.py",
        "                if path not in self._next:\n                    del self._locks[path]\n",
        "                del self._locks[path]\n",
        (f"{SHARED_SYNCS}::test_a_hundred_calls_during_a_sync_share_one",),
    ),
    Mutant(
        "bad-batch-costs-itself",
        "each read beside a bad batch that stays scans the whole segment again",
        f"{LOG_ROOM}/segment.py",
        "if self._fault is not None and reached <= self._fault[0]:",
        "if False:",
        (f"{TIME_LOOKUP}::test_a_bad_batch_costs_lookups_and_reads_one_scan_of_its_segment",),
    ),
    Mutant(
        "full-disk-gives-way",
        "a coordinator whose disk is full stays the leader",
        "broker/quorate_broker/replica/partition.py",
        "if self.is_internal and self.role.queue.is_full and self._may_give_way(now_ms):",
        "if False:",
        (f"{FULL_DISK}::test_the_leader_of_an_internal_topic_whose_disk_is_full_gives_way",),
    ),
    Mutant(
        "full-disk-gives-way",
        "a leader whose disk is full gives way although the others are too few",
        "broker/quorate_broker/replica/partition.py",
        "len(resignation.members) >= self.role.machine.min_isr",
        "resignation.members",
        (f"{FULL_DISK}::test_a_leader_whose_disk_is_full_stays_otherwise",),
    ),
    Mutant(
        "full-disk-gives-way",
        "the leadership goes round when all disks are full",
        "broker/quorate_broker/replica/partition.py",
        "return leader_epoch == self.state.leader_epoch or now_ms >= at_ms + GIVES_WAY_INTERVAL_MS",
        "return True",
        (f"{FULL_DISK}::test_the_leadership_does_not_go_round_when_all_disks_are_full",),
    ),
    Mutant(
        "most-room-first",
        "replicas whose directory is gone all go to the first of the others",
        "quorum/quorate_quorum/controller/decisions/free_space.py",
        "        if told is not None:\n            told.unwritten += 1\n",
        "",
        (
            "tests/unit/quorate_quorum/controller/test_free_space.py"
            "::test_replicas_whose_directory_is_gone_go_where_the_most_space_is_one_by_one",
        ),
    ),
    Mutant(
        "copies-are-kept",
        "an only replica whose directory is away is made anew in another one",
        "quorum/quorate_quorum/controller/decisions/partitions.py",
        "    if directory is None and (new.isr or new.elr):\n",
        "    if directory is None:\n",
        (f"{CLUSTER_DISKS}::test_an_only_replica_waits_for_its_directory_and_is_not_made_anew",),
    ),
    Mutant(
        "corrupt-copy-is-left",
        "a consumer tells the first corrupt batch, and asks no other replica",
        CORRUPTION,
        "if len(known.leaders) > 1 or waited >= CORRUPT_RETRY_S:",
        "if True:",
        (f"{CONSUMER_TESTS}::{CORRUPT_FOR_A_WHILE}",),
    ),
    Mutant(
        "corrupt-copy-is-left",
        "a consumer fetches a batch that stays corrupt for ever",
        CORRUPTION,
        "if len(known.leaders) > 1 or waited >= CORRUPT_RETRY_S:",
        "if len(known.leaders) > 1:",
        (
            f"{CONSUMER_TESTS}::test_a_batch_that_stays_corrupt_is_told_after_a_bound_and_can_be_passed",
        ),
    ),
    Mutant(
        "corrupt-copy-is-left",
        "a consumer waits although two replicas have sent the corrupt batch",
        CORRUPTION,
        "if len(known.leaders) > 1 or waited >= CORRUPT_RETRY_S:",
        "if waited >= CORRUPT_RETRY_S:",
        (f"{CONSUMER_TESTS}::test_a_batch_that_two_leaders_send_corrupt_is_told_at_once",),
    ),
    Mutant(
        "log-decides-schemas",
        "a schema is accepted although another one came between",
        CATALOG,
        'if change.get("after") != self._last_change(subject):',
        "if False:",
        (f"{CATALOG_TESTS}::test_of_two_proposals_on_the_same_state_the_first_in_the_log_wins",),
    ),
    Mutant(
        "log-decides-schemas",
        "a schema is accepted although the rule for all subjects has changed",
        CATALOG,
        "return max(own, self._rule_changed)",
        "return self._rule_changed if subject is None else own",
        (f"{CATALOG_TESTS}::test_a_schema_that_was_checked_under_an_older_rule_loses",),
    ),
    Mutant(
        "log-decides-schemas",
        "an accepted schema is deleted, and compaction takes the versions after it away",
        "clients/quorate/schema_registry/topic.py",
        "if not self._accepted[proposal.key]:",
        "if True:",
        (f"{SCHEMA_TOPIC_TESTS}::test_a_proposal_is_answered_only_after_it_was_read",),
    ),
    Mutant(
        "log-decides-schemas",
        "a registry answers before it has read up to its own proposal",
        "clients/quorate/schema_registry/topic.py",
        "await self._reach(written.offset + 1)",
        "await self._reach(written.offset)",
        (f"{SCHEMA_TOPIC_TESTS}::test_a_proposal_is_answered_only_after_it_was_read",),
    ),
    Mutant(
        "cancelled-calls",
        "a send that is cancelled has put its record into the buffer",
        PRODUCER,
        "size\n        )\n        return Delivery(",
        "size\n        )\n        await asyncio.sleep(0)\n        return Delivery(",
        (f"{PRODUCER_CANCELLATION}::test_a_call_that_is_cancelled_at_any_point",),
    ),
    Mutant(
        "cancelled-calls",
        "those that wait for room behind a send that is cancelled wait for ever",
        "clients/quorate/producer/buffer_room.py",
        "            loop.call_soon(self.give)\n",
        "",
        (f"{PRODUCER_CANCELLATION}::test_a_call_that_is_cancelled_at_any_point",),
    ),
    Mutant(
        "cancelled-calls",
        "after a flush that is cancelled no batch lingers any more",
        PRODUCER,
        "        finally:\n            self._accumulator.flushes -= 1\n",
        "        except ArithmeticError:\n            pass\n",
        (f"{PRODUCER_CANCELLATION}::test_a_call_that_is_cancelled_at_any_point",),
    ),
    Mutant(
        "cancelled-calls",
        "a start that is cancelled leaves its connections open",
        "clients/quorate/cluster/client.py",
        "            except BaseException:\n                await cluster.stop()\n",
        "            except BaseException:\n",
        (
            f"{PRODUCER_CANCELLATION}::test_a_call_that_is_cancelled_at_any_point",
            f"{CONSUMER_CANCELLATION}::test_a_call_that_is_cancelled_at_any_point",
        ),
    ),
    Mutant(
        "cancelled-calls",
        "a start that is cancelled twice leaves its fetch streams",
        "clients/quorate/consumer/fetcher.py",
        "finally:\n            # also if this stop is cancelled, as in a start",
        "except ArithmeticError:\n            # also if this stop is cancelled, as in a start",
        (f"{CONSUMER_CANCELLATION}::test_a_call_that_is_cancelled_at_any_point",),
    ),
    Mutant(
        "stopped-clients",
        "a wait that begins after the end of a client lasts to its deadline",
        "clients/quorate/aio/owner.py",
        "error = self.failure or self._ended",
        "error = self.failure",
        (
            f"{OWNER_TESTS}::test_a_wait_that_begins_after_the_end_fails_at_once",
            f"{OWNER_TESTS}::test_positions_that_are_awaited_after_the_stop_are_not_waited_for",
        ),
    ),
    Mutant(
        "stopped-clients",
        "a commit of a consumer that was stopped does nothing, and says nothing",
        "clients/quorate/cluster/client.py",
        "        if self._is_closed:\n            raise self._stopped_error()\n",
        "",
        (f"{PUBLIC_SURFACE}::test_a_call_of_a_client_that_does_not_run_says_so",),
    ),
    Mutant(
        "stopped-clients",
        "a producer takes records after its last flush has begun",
        PRODUCER,
        "self._accumulator.closed = self._accumulator.closed or stopped",
        "pass",
        (f"{PRODUCER_WAITS}::test_no_record_is_taken_while_stop_waits_for_those_before",),
    ),
    Mutant(
        "order-under-retry",
        "later batches are sent while one waits to be sent again",
        "clients/quorate/producer/partition_queue.py",
        "return not (self.is_retrying and self.in_flight and not self._is_same_run)",
        "return True",
        (f"{ACCUMULATOR_TESTS}::test_while_a_batch_waits_to_be_sent_again_no_later_one_is_sent",),
    ),
    Mutant(
        "order-under-retry",
        "without idempotence a batch is under way behind one that may come back",
        PRODUCER,
        "max_in_flight=1 if retries_blindly else max_in_flight",
        "max_in_flight=max_in_flight",
        (f"{PRODUCER_TESTS}::test_without_idempotence_a_retry_keeps_the_order_too",),
    ),
    Mutant(
        "order-under-retry",
        "batches that expire together fail in no order",
        ACCUMULATOR,
        "        for batch in expired:\n            self._finish",
        "        for batch in reversed(expired):\n            self._finish",
        (f"{ACCUMULATOR_TESTS}::test_batches_expire_in_order_in_flight_or_not",),
    ),
    Mutant(
        "bounded-clients",
        "a producer takes more records than its buffer holds",
        PRODUCER,
        "or accumulator.bytes_used + size > accumulator.config.buffer_bytes_max",
        "or False",
        (f"{PRODUCER_TESTS}::test_a_full_buffer_makes_send_wait_in_order",),
    ),
    Mutant(
        "bounded-clients",
        "a consumer whose buffer is full goes on to fetch",
        FETCH_STREAM,
        "if asked is None and not self._buffer.is_full:",
        "if asked is None:",
        (f"{PREFETCH}::test_what_is_fetched_ahead_of_all_partitions_is_bounded",),
    ),
    Mutant(
        "bounded-clients",
        "each new stream of a consumer whose buffer is full fetches once more",
        FETCH_STREAM,
        "if self._first is None and not self._buffer.is_full:",
        "if self._first is None:",
        (f"{PREFETCH}::test_what_is_fetched_ahead_of_all_partitions_is_bounded",),
    ),
    Mutant(
        "bounded-clients",
        "one partition fills the whole buffer",
        CONSUMER_STATE,
        "and self.ahead_bytes < ahead_bytes_max",
        "and True",
        (f"{PREFETCH}::test_what_is_fetched_ahead_of_one_partition_is_bounded",),
    ),
    Mutant(
        "bounded-clients",
        "threads put more into the inbox than it holds",
        INBOX,
        "                self._wait(size, timeout_s)\n"
        "            if self._closed is not None:\n"
        "                raise self._closed.with_traceback(None)\n"
        "            bulk = self._open\n",
        "                pass\n            bulk = self._open\n",
        (f"{INBOX_TESTS}::test_a_put_without_room_is_refused_after_its_time_out",),
    ),
    Mutant(
        "bounded-clients",
        "two threads take the same room",
        INBOX,
        "while self._closed is None and self._bytes_held + size > self.bytes_max:",
        "if self._closed is None and self._bytes_held + size > self.bytes_max:",
        (f"{INBOX_TESTS}::test_a_put_without_room_is_refused_after_its_time_out",),
    ),
    Mutant(
        "bounded-clients",
        "a batch whose codec fails keeps room in the buffer for ever",
        ACCUMULATOR,
        "                self.bytes_used -= batch.settle()  # counted before the codec can fail\n"
        "                size = batch.encode()\n",
        "                freed = batch.settle()\n"
        "                size = batch.encode()\n"
        "                self.bytes_used -= freed\n",
        (f"{ACCUMULATOR_TESTS}::test_a_batch_that_cannot_be_encoded_gives_all_its_room_back",),
    ),
    Mutant(
        "thread-inbox",
        "the loop is not woken for a record of a thread",
        INBOX,
        "            if not self._is_told:\n"
        "                self._tell()\n"
        "        return bulk, index\n",
        "        return bulk, index\n",
        (f"{INBOX_TESTS}::test_the_loop_is_woken_once_for_all_items_of_an_inbox_that_was_empty",),
    ),
    Mutant(
        "thread-inbox",
        "a record that is refused leaves an empty bulk, and no later record wakes the loop",
        INBOX,
        "                bulk = Bulk(topic, partition, RecordColumns(), self._clock())\n",
        "                bulk = Bulk(topic, partition, RecordColumns(), self._clock())\n"
        "                self._bulks.append(bulk)\n",
        (
            f"{INBOX_TESTS}::test_a_record_that_is_refused_leaves_nothing_and_the_next_one_wakes_the_loop",
        ),
    ),
    Mutant(
        "thread-inbox",
        "the records of a thread change their order",
        INBOX,
        "            if index == 0:\n                self._bulks.append(bulk)\n",
        "            if index == 0:\n                self._bulks.appendleft(bulk)\n",
        (f"{INBOX_TESTS}::test_records_of_several_partitions_and_bulks_keep_their_order",),
    ),
    Mutant(
        "thread-inbox",
        "after a signal between a put and its wake-up no later record wakes the loop",
        INBOX,
        "        self._wake()\n        self._is_told = True\n",
        "        self._is_told = True\n        self._wake()\n",
        (f"{INBOX_TESTS}::test_a_signal_at_any_line_of_a_put_leaves_the_inbox_whole",),
    ),
    Mutant(
        "thread-inbox",
        "after a signal in the middle of a put later records get the keys of other records",
        INBOX,
        "            bulk = self._open\n            self._open = None",
        "            bulk = self._open\n            pass",
        (f"{INBOX_TESTS}::test_a_signal_at_any_line_of_a_put_leaves_the_inbox_whole",),
    ),
    Mutant(
        "thread-inbox",
        "after a signal in a put the inbox gives back more room than it took",
        INBOX,
        "self.puts, self._bytes_held = self._taken, self._bytes_taken",
        "pass",
        (f"{INBOX_TESTS}::test_a_signal_at_any_line_of_a_put_leaves_the_inbox_whole",),
    ),
    Mutant(
        "thread-inbox",
        "a record is put into the inbox after the last look at it",
        INBOX,
        "                raise self._closed.with_traceback(None)\n            bulk = self._open\n",
        "                pass\n            bulk = self._open\n",
        (f"{INBOX_TESTS}::test_a_closed_inbox_refuses_all_and_ends_the_waits",),
    ),
    Mutant(
        "thread-inbox",
        "a record of the inbox whose producer has ended never gets an outcome",
        "clients/quorate/sync/pump.py",
        "while not bulk.is_done:\n                    self._failed(bulk, stopped)\n",
        "pass\n",
        (f"{SYNC_CLIENT_TESTS}::test_what_the_end_of_the_loop_s_tasks_leaves_is_told",),
    ),
    Mutant(
        "thread-inbox",
        "stop loses the records that are in the inbox",
        "clients/quorate/sync/pump.py",
        "            if self._task is not None:\n                await self.emptied()\n",
        "            pass\n",
        (f"{SYNC_CLIENT_TESTS}::test_stop_waits_until_the_loop_has_taken_all_records",),
    ),
    Mutant(
        "blocking-consumer",
        "a commit counts records as given that wait on the shelf of a thread",
        "clients/quorate/sync/consumer.py",
        "            shelf.put_back()\n            return await call()\n",
        "            return await call()\n",
        (f"{SYNC_CLIENT_TESTS}::test_positions_and_commits_are_about_what_the_program_was_given",),
    ),
    Mutant(
        "forked-clients",
        "a child that was forked works with the clients of its parent",
        "clients/quorate/sync/background.py",
        "        if not self.is_of_this_process:\n            raise",
        "        if False:\n            raise",
        (f"{PUBLIC_SURFACE}::test_a_call_of_a_blocking_client_after_a_fork_is_refused",),
    ),
    Mutant(
        "forked-clients",
        "a fork is not noticed",
        "clients/quorate/aio/owner.py",
        "    _forks += 1\n",
        "    _forks += 0\n",
        (f"{OWNER_TESTS}::test_a_client_that_was_started_before_a_fork_is_refused_in_the_child",),
    ),
    Mutant(
        "bounded-requests",
        "a request is parsed whatever its size",
        "clients/quorate/net/network.py",
        "        if len(data) > bytes_max:\n",
        "        if False:\n",
        (f"{REQUEST_BYTES}::test_a_request_above_the_bound_is_refused_unread",),
    ),
    Mutant(
        "bounded-requests",
        "the header of a frame is parsed whatever its size",
        "clients/quorate/net/frame.py",
        "if header_bytes_max is not None and len(header_bytes) > header_bytes_max:",
        "if False:",
        (f"{REQUEST_BYTES}::test_a_frame_is_bounded_by_its_header_and_not_by_its_payload",),
    ),
)
