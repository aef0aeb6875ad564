#!/bin/sh
# Formats the disks of all nodes of compose.yaml, the first time that it runs, and never again.
#
# A node never formats its own disk: a majority of disks that were lost could elect a leader and forget
# what was acknowledged. So this runs before the nodes start, for all of them at once. From then on a
# directory that is gone stays gone, and its node does not start (docs/operations.md).
#
#   VOTERS   ID@HOST:PORT of each voter, by spaces
#   BROKERS  the id of each broker
#   DATA     where the directories voter-ID and broker-ID are made
#   QUORATE_QUORUM_BOOTSTRAP_SERVERS, QUORATE_ALLOW_INSECURE_LISTENERS   as of the nodes
set -eu
: "${VOTERS:?}" "${BROKERS:?}" "${DATA:=/var/lib/quorate}"

if [ -e "$DATA/formatted" ]; then
    echo "formatted already: $(cat "$DATA/formatted")"
    exit 0
fi

# The ids are kept first: if this is stopped half-way, the next run goes on with the same ones.
if [ ! -e "$DATA/ids" ]; then
    initial=
    for voter in $VOTERS; do
        initial="${initial:+$initial,}$voter:$(quorate storage random-id)"
    done
    printf '%s\n%s\n' "$(quorate storage random-id)" "$initial" >"$DATA/ids.new"
    sync
    mv "$DATA/ids.new" "$DATA/ids"
fi
cluster=$(sed -n 1p "$DATA/ids")
initial=$(sed -n 2p "$DATA/ids")

format() { # NODE_ID ADDRESS DIRECTORY OPTIONS...
    node=$1 address=$2 directory=$3
    shift 3
    QUORATE_NODE_ID=$node QUORATE_LISTENERS=grpc://$address QUORATE_LOG_DIRS=$directory \
        quorate storage format --config /dev/null --cluster-id "$cluster" --ignore-formatted "$@"
}

for voter in $VOTERS; do
    format "${voter%%@*}" "${voter#*@}" "$DATA/voter-${voter%%@*}" --initial-voters "$initial"
done
for broker in $BROKERS; do
    format "$broker" "localhost:7092" "$DATA/broker-$broker"
done
sync
echo "cluster $cluster" >"$DATA/formatted"
