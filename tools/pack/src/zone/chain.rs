//! The NSEC3 chain that a zone serves (RFC 5155).

use std::collections::BTreeMap;

use data_encoding::BASE32HEX_NOPAD;

use super::super::problem::Findings;
use super::name::presentation;
use super::records::{Record, Records};
use super::types;

const NSEC3: u16 = 50;
const NSEC3PARAM: u16 = 51;

/// The greatest number of NSEC3 iterations. RFC 9276 section 3.1 asks for none, and each one costs every negative
/// answer a hash.
const ITERATIONS: u16 = 100;

/// The parameters of an NSEC3 chain: iterations and salt.
pub(super) type Parameters = (u16, Vec<u8>);

/// The parameters of the served NSEC3 chain: those of the NSEC3PARAM record at the apex with flags 0.
pub(super) fn parameters(
    records: &Records,
    list: &[Record],
    apex: &[u8],
    findings: &mut Findings,
) -> Option<Parameters> {
    let mut chosen = None;
    for record in list
        .iter()
        .filter(|record| matches!(record.rtype, NSEC3 | NSEC3PARAM))
    {
        let (file, line) = records.place(record);
        let Some((hash, flags, parameters)) = nsec3_fields(records.bytes(record.rdata)) else {
            findings.error(file, line, "its NSEC3 data is cut short");
            continue;
        };
        let name = types::name(record.rtype);
        if hash != 1 {
            let what = format!("{name} with hash {hash}: only SHA-1 (1) is served");
            findings.error(file, line, what);
        } else if parameters.0 > ITERATIONS {
            let what = format!(
                "{name} with {} iterations: more than {ITERATIONS} are refused (RFC 9276)",
                parameters.0
            );
            findings.error(file, line, what);
        } else if record.rtype == NSEC3PARAM
            && records.bytes(record.key) == apex
            && flags == 0
            && chosen.is_none()
        {
            chosen = Some(parameters);
        }
    }
    chosen
}

/// The hash algorithm, the flags and the parameters in an NSEC3 or NSEC3PARAM record (RFC 5155 sections 3.2 and 4.2).
fn nsec3_fields(rdata: &[u8]) -> Option<(u8, u8, Parameters)> {
    let [hash, flags, high, low, length, rest @ ..] = rdata else {
        return None;
    };
    let salt = rest.get(..usize::from(*length))?;
    let iterations = u16::from_be_bytes([*high, *low]);
    Some((*hash, *flags, (iterations, salt.to_vec())))
}

/// Adds a node with NSEC3 to the chain, if it belongs to the served chain.
pub(super) fn chain_link(
    records: &Records,
    group: &[Record],
    at: u32,
    parameters: &Option<Parameters>,
    chain: &mut BTreeMap<[u8; 20], u32>,
    findings: &mut Findings,
) {
    let served = group.iter().find(|record| {
        let fields = nsec3_fields(records.bytes(record.rdata));
        record.rtype == NSEC3 && fields.map(|fields| fields.2) == *parameters
    });
    let Some(record) = served else {
        return;
    };
    let owner = records.bytes(record.owner);
    let hash = owner
        .split_first()
        .and_then(|(length, rest)| rest.get(..usize::from(*length)))
        .and_then(|label| BASE32HEX_NOPAD.decode(&label.to_ascii_uppercase()).ok())
        .and_then(|hash| <[u8; 20]>::try_from(hash).ok());
    let (file, line) = records.place(record);
    match hash {
        Some(hash) => drop(chain.insert(hash, at)),
        None => {
            let what = format!("{} is not an NSEC3 hash", presentation(owner));
            findings.error(file, line, what);
        }
    }
}
