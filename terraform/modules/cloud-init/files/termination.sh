#!/bin/sh
# Drains the relay when the cloud says that this machine is about to end: it leaves the lists at once, sends clients that come to it
# on to others, and ends when its last call has, or with the machine.
set -eu

# shellcheck source=/dev/null
. /etc/turnfleet/setup.env
# shellcheck source=cloud.sh
. /usr/local/lib/turnfleet/cloud.sh

# Whether there is a notice. A metadata service that does not answer says nothing.
noticed() {
    case $TERMINATION_NOTICE in
    aws)
        aws_metadata spot/instance-action >/dev/null ||
            [ "$(aws_metadata autoscaling/target-lifecycle-state)" = Terminated ]
        ;;
    google)
        preempted=$(curl -sf --max-time 5 -H 'Metadata-Flavor: Google' "$METADATA/computeMetadata/v1/instance/preempted") || return 1
        [ "$preempted" = TRUE ]
        ;;
    azure)
        events=$(curl -sf --max-time 5 -H 'Metadata: true' "$METADATA/metadata/scheduledevents?api-version=2020-07-01") || return 1
        printf %s "$events" | grep -Eq '"EventType": *"(Preempt|Terminate)"'
        ;;
    *) return 1 ;;
    esac
}

noticed || exit 0
say "this machine is about to end: the relay drains"
systemctl stop "$SERVICE.service"
if [ -n "$AWS_LIFECYCLE_HOOK" ]; then
    instance=$(aws_metadata instance-id)
    aws_call autoscaling --output /dev/null --data-urlencode Action=CompleteLifecycleAction --data-urlencode Version=2011-01-01 \
        --data-urlencode "LifecycleHookName=$AWS_LIFECYCLE_HOOK" --data-urlencode "AutoScalingGroupName=$AWS_GROUP" \
        --data-urlencode "InstanceId=$instance" --data-urlencode LifecycleActionResult=CONTINUE ||
        say "Auto Scaling could not be told that the relay has drained, and waits until the hook ends"
fi
systemctl stop turnfleet-termination.timer
say "drained"
