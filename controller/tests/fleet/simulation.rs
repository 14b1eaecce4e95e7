//! Whatever happens in whatever order.

use proptest::prelude::*;
use turnfleet_controller::fleet::record::{Desired, Record};
use turnfleet_controller::fleet::{Ask, Ended, Health, Load};

use crate::stage::{Stage, id, identity};

#[derive(Clone, Debug)]
enum Step {
    Register(u8, u8),
    Probe(u8, bool),
    Heartbeat(u8, u64),
    End(u8, bool),
    Drain(u8, bool),
    Generation,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0u8..4;
    prop_oneof![
        (node.clone(), 1u8..4).prop_map(|(node, run)| Step::Register(node, run)),
        (node.clone(), any::<bool>()).prop_map(|(node, good)| Step::Probe(node, good)),
        (node.clone(), 0u64..1000).prop_map(|(node, load)| Step::Heartbeat(node, load)),
        (node.clone(), any::<bool>()).prop_map(|(node, reset)| Step::End(node, reset)),
        (node, any::<bool>()).prop_map(|(node, on)| Step::Drain(node, on)),
        Just(Step::Generation),
        (1u64..80).prop_map(|tenths| Step::Wait(tenths * 100)),
    ]
}

impl Stage {
    fn take(&mut self, step: &Step) {
        match *step {
            Step::Register(node, run) => self.register(node, identity(node), run),
            Step::Probe(node, good) => self.probe(node, good),
            Step::Heartbeat(node, allocations) => {
                let load = Load {
                    allocations,
                    ..Load::default()
                };
                self.heartbeat(node, self.fleet.generation(), load);
            }
            Step::End(node, true) => self.end(node, Ended::Reset),
            Step::End(node, false) => self.end(node, Ended::Goodbye),
            Step::Drain(node, draining) => {
                let desired = Desired {
                    draining,
                    drain_deadline: None,
                    kill: None,
                };
                self.store(Record::Desired(id(node), desired));
            }
            Step::Generation => self.store(Record::Generation(self.fleet.generation() + 1)),
            Step::Wait(millis) => self.wait(millis),
        }
    }
}

proptest! {
    #[test]
    fn a_list_is_empty_only_where_no_node_serves(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut stage = Stage::of(2);
        for step in &steps {
            stage.take(step);
            let view = stage.view();
            let serves = |node: &turnfleet_controller::fleet::NodeView| {
                let lives = matches!(node.health, Health::Healthy | Health::Unmanaged);
                (lives || node.suspect) && !node.draining
            };
            let any = view.nodes.iter().any(|node| serves(node));
            prop_assert_eq!(!view.list(&Ask::default()).is_empty(), any);
            prop_assert!(view.nodes.iter().all(|node| serves(node) || !node.listed));
        }
    }
}
