//! Failures in the middle of hatch's work leave nothing behind.

use anyhow::{Context, Result, ensure};

use crate::birth::{EXAMPLE, HATCH, Place};
use crate::cases::Case;

pub(crate) const CASES: &[Case] = &[
    ("a failure at any step leaves nothing behind", failures),
    (
        "gc removes what kill -9 at any step has left, and nothing else",
        kills,
    ),
    ("a back end that closes leaves nothing behind", closed),
    (
        "a destruction that ends after any request is ended by the next",
        destructions,
    ),
    LOST,
];

/// The connection to xenstored is lost. This is tested with both xenstoreds.
pub(crate) const LOST: Case = (
    "a connection to xenstored that ends leaves nothing behind",
    lost,
);

/// Arguments for a second guest, so that the two have different addresses.
const QUIET: &str = "ip=10.0.2.90/24";

/// The steps of a creation, by the names under which faults are injected.
fn steps(place: &Place) -> Result<Vec<String>> {
    let steps = place.hatched(&["create", "--list-steps"])?;
    let steps: Vec<String> = steps.lines().map(str::to_owned).collect();
    ensure!(steps.len() > 5, "the steps are {steps:?}");
    Ok(steps)
}

fn failures(place: &Place) -> Result<()> {
    for step in steps(place)? {
        let fault = format!("HATCH_FAIL_AT={step}");
        let output = place.lab.exec(&["env", &fault, HATCH, "create", EXAMPLE])?;
        let text = output.error_text();
        ensure!(
            !output.success() && text.contains(&format!("`{step}`")),
            "{fault}: exit code {}: {text}",
            output.code
        );
        place.nothing_left().context(fault)?;
    }
    Ok(())
}

fn kills(place: &Place) -> Result<()> {
    let other = format!("extra=\"{QUIET}\"");
    place
        .lab
        .run(&["xl", "create", EXAMPLE, "name=\"other\"", &other])?;
    place.hatched(&[
        "create",
        "--name",
        "another",
        "--extra",
        "ip=10.0.2.91/24",
        EXAMPLE,
    ])?;
    let result = (|| {
        for step in steps(place)? {
            if step == "finish" {
                // The guest is complete and runs, so gc must not touch it.
                continue;
            }
            let fault = format!("HATCH_KILL_AT={step}");
            let output = place.lab.exec(&["env", &fault, HATCH, "create", EXAMPLE])?;
            ensure!(!output.success(), "{fault}: it succeeds");
            place.hatched(&["gc"])?;
            ensure!(
                !place.lab.exec(&["xl", "domid", "mayfly"])?.success(),
                "{fault}: the domain stays"
            );
            for address in ["10.0.2.90", "10.0.2.91"] {
                let page = place
                    .lab
                    .shell(&format!("wget -q -O - http://{address}/"))?;
                ensure!(
                    !page.is_empty(),
                    "{fault}: {address} is not served any more"
                );
            }
            // Leftovers would make this fail.
            place.hatched(&["create", EXAMPLE]).context(fault)?;
            place.hatched(&["destroy", "mayfly"])?;
        }
        Ok(())
    })();
    place.lab.run(&["xl", "destroy", "other"])?;
    place.hatched(&["destroy", "another"])?;
    result
}

/// Sets the state of the only back end, once it is connected. It connects only after `hotplug-status` is set.
const CLOSE: &str = "
    back=/local/domain/0/backend/vif/$(xenstore-list /local/domain/0/backend/vif)/0
    xenstore-write $back/hotplug-status connected
    until [ $(xenstore-read $back/state) = 4 ]; do sleep 0.1; done
    xenstore-write $back/state";

fn closed(place: &Place) -> Result<()> {
    for state in ["5", "6"] {
        let script = format!("HATCH_RUN={CLOSE} {state}");
        // The last step checks the back end.
        let output = place.lab.exec(&[
            "env",
            "HATCH_RUN_AT=claim",
            &script,
            HATCH,
            "create",
            EXAMPLE,
        ])?;
        let text = output.error_text();
        ensure!(
            output.code == 1 && text.contains("`finish`") && text.contains("closed"),
            "state {state}: exit code {}: {text}",
            output.code
        );
        place.nothing_left().context(state)?;
    }
    Ok(())
}

fn lost(place: &Place) -> Result<()> {
    // Go through the requests of a creation. Beyond them, it succeeds.
    let step = if crate::is_long() { 1 } else { 12 };
    for requests in (1..200).step_by(step) {
        let fault = format!("HATCH_CUT_AFTER={requests}");
        let output = place.lab.exec(&["env", &fault, HATCH, "create", EXAMPLE])?;
        if output.success() {
            ensure!(requests > 40, "{fault}: it succeeds");
            return place.hatched(&["destroy", "mayfly"]).map(drop);
        }
        let text = output.error_text();
        ensure!(
            output.code == 1 && text.contains("step `") && text.contains("xenstored"),
            "{fault}: exit code {}: {text}",
            output.code
        );
        place.nothing_left().context(fault)?;
    }
    anyhow::bail!("a creation makes more than 200 requests")
}

/// `destroy` is killed, or loses xenstored, after each of its requests. The next `destroy` and `gc` remove the
/// leftovers.
fn destructions(place: &Place) -> Result<()> {
    for fault in ["HATCH_KILL_AFTER", "HATCH_CUT_AFTER"] {
        for requests in 1..100 {
            let fault = format!("{fault}={requests}");
            place.hatched(&["create", EXAMPLE]).context(fault.clone())?;
            let output = place
                .lab
                .exec(&["env", &fault, HATCH, "destroy", "mayfly"])?;
            if output.success() {
                ensure!(requests > 8, "{fault}: it succeeds");
                place.nothing_left().context(fault)?;
                break;
            }
            // The guest has lost its name, or still exists.
            let again = place.hatch(&["destroy", "mayfly"])?;
            ensure!(
                again.success() || again.code == 3,
                "{fault}: destroyed again: exit code {}: {}",
                again.code,
                again.error_text()
            );
            place.hatched(&["gc"])?;
            place.nothing_left().context(fault)?;
        }
    }
    Ok(())
}
