//! What Xen or the kernel refuses when a guest is suspended or resumed ends that guest.

use super::*;

/// Leads a service whose guest is to be suspended there.
fn goes_to_sleep(bed: &mut Bed, name: &str) {
    let id = bed.id(name);
    let asked = Duration::from_secs(600);
    bed.passes(asked);
    let now = Instant::now() + asked;
    bed.daemon.step(now, FleetEvent::Connections(id, Some(0)));
    bed.passes(asked + Duration::from_secs(10));
}

fn is_paused(bed: &Bed) -> bool {
    let info = bed.host.xen.clone().info(GUEST);
    info.unwrap().unwrap().is_paused()
}

#[test]
fn a_failure_to_suspend_or_to_resume_ends_the_guest() {
    let gone = |bed: &mut Bed| {
        let id = bed.id("www").0;
        assert_eq!(bed.ordered(), [format!("remove {id} {GUEST}")]);
        assert!(matches!(bed.state("www"), ServiceState::Dying(_)));
    };
    // It stays as long as nothing fails.
    let mut bed = suspendable();
    goes_to_sleep(&mut bed, "www");
    assert!(matches!(
        bed.state("www"),
        ServiceState::Suspended(GUEST, _)
    ));
    assert!(is_paused(&bed));
    bed.says(ToMaker::Wake(bed.wake("www", None))).unwrap();
    assert!(!is_paused(&bed));
    assert_eq!(bed.ordered(), [""; 0]);

    let mut bed = suspendable();
    bed.host.xen.refuses("pause", 22);
    goes_to_sleep(&mut bed, "www");
    gone(&mut bed);

    let mut bed = suspendable();
    bed.ports.2.set(true);
    goes_to_sleep(&mut bed, "www");
    gone(&mut bed);

    let mut bed = suspendable();
    goes_to_sleep(&mut bed, "www");
    bed.host.xen.refuses("unpause", 22);
    bed.says(ToMaker::Wake(bed.wake("www", None))).unwrap();
    gone(&mut bed);

    let mut bed = suspendable();
    goes_to_sleep(&mut bed, "www");
    bed.ports.2.set(true);
    bed.says(ToMaker::Wake(bed.wake("www", None))).unwrap();
    gone(&mut bed);
}

/// A service with a guest that was heard, which is suspended when nobody asks for it.
fn suspendable() -> Bed {
    let mut bed = bed("asleep = \"suspend\"").alone();
    bed.says(ToMaker::Wake(bed.wake("www", None))).unwrap();
    bed.made("www", GUEST);
    let id = bed.id("www");
    let heard = Instant::now() + Duration::from_secs(1);
    bed.daemon.step(heard, FleetEvent::Heard(id));
    bed.ordered();
    bed
}
