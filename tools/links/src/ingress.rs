//! A filter at the ingress of a link: a classic BPF program that sees each frame before the bridge does, as `tc`'s
//! `bpf` filter with direct action (`net/sched/cls_bpf.c`). It is removed with the link.

use netlink_packet_core::{DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_ECHO, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};

use super::error::Error;
use super::message::{Netlink, bytes};
use super::socket::{Links, refused};

/// `TCA_BPF_OPS_LEN` and `TCA_BPF_OPS` of `linux/pkt_cls.h`.
const TCA_BPF_OPS_LEN: u16 = 4;
const TCA_BPF_OPS: u16 = 5;
/// `ETH_P_ALL` of `linux/if_ether.h`.
const ETH_P_ALL: u16 = 3;
/// The priority of the filter: the first one of the link.
const PRIORITY: u16 = 1;
/// The handle of the ingress qdisc, by convention `ffff:0`.
const QDISC: TcHandle = TcHandle {
    major: 0xffff,
    minor: 0,
};

/// One instruction of classic BPF: `struct sock_filter` of `linux/filter.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The operation, by the constants of `linux/bpf_common.h`.
    pub code: u16,
    /// The number of instructions to skip if the comparison is true.
    pub jt: u8,
    /// The number of instructions to skip if the comparison is false.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

impl Links {
    /// Installs a program that sees every frame which arrives by a link, from the Ethernet header on. It replaces an
    /// earlier one. The program returns `TC_ACT_OK`, 0, for a frame to pass, and `TC_ACT_SHOT`, 2, for a frame to drop
    /// and count.
    ///
    /// # Errors
    /// The kernel lacks `sch_ingress` or `cls_bpf`, refuses the program, or has no such link.
    pub fn filter(&mut self, link: u32, program: &[Instruction]) -> Result<(), Error> {
        let (qdisc, filter) = (self.next(), self.next());
        // Both messages are sent in one datagram; the kernel handles them in order.
        let mut both = bytes(
            qdisc,
            NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE,
            RouteNetlinkMessage::NewQueueDiscipline(ingress(link)),
        );
        both.extend(bytes(
            filter,
            NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE,
            RouteNetlinkMessage::NewTrafficFilter(bpf(link, program)),
        ));
        self.ask(&both)?;
        let (qdisc, filter) = (
            self.outcome(qdisc, "an ingress qdisc")?,
            self.outcome(filter, "a bpf filter")?,
        );
        for (code, module) in [(qdisc, "sch_ingress"), (filter, "cls_bpf")] {
            match code {
                0 => {}
                // ENOENT: the kernel has no such kind.
                -2 => return Err(Error::NoModule(module)),
                code => {
                    return Err(refused(
                        code,
                        "a filter at the vif",
                        &format!("number {link}"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The number of frames that the filter of a link has dropped.
    ///
    /// # Errors
    /// There is no filter, or no link.
    pub fn filtered(&mut self, link: u32) -> Result<u32, Error> {
        let sequence = self.next();
        let message = RouteNetlinkMessage::GetQueueDiscipline(ingress(link));
        // Without the echo flag, the kernel would send the answer to all listeners but us.
        self.ask(&bytes(sequence, NLM_F_REQUEST | NLM_F_ECHO, message))?;
        match self.reply(sequence, "an ingress qdisc")? {
            Netlink::Qdisc { drops, .. } => Ok(drops),
            Netlink::Outcome { code, .. } => Err(refused(
                code,
                "the filter's count",
                &format!("number {link}"),
            )),
            _ => Err(Error::Malformed("another answer than a qdisc".to_owned())),
        }
    }
}

fn ingress(link: u32) -> TcMessage {
    let mut message = message(link, "ingress");
    message.header.handle = QDISC;
    message.header.parent = TcHandle::INGRESS;
    message
}

fn bpf(link: u32, program: &[Instruction]) -> TcMessage {
    let mut message = message(link, TcFilterBpf::KIND);
    message.header.parent = QDISC;
    message.header.handle = TcHandle { major: 0, minor: 1 };
    // The protocol is in network byte order.
    let info = TcHandle {
        major: PRIORITY,
        minor: ETH_P_ALL.to_be(),
    };
    message.header.info = info.into();
    let count = u16::try_from(program.len()).unwrap_or(u16::MAX);
    let mut code = Vec::with_capacity(program.len() * 8);
    for Instruction {
        code: op,
        jt,
        jf,
        k,
    } in program
    {
        code.extend(op.to_ne_bytes());
        code.extend([*jt, *jf]);
        code.extend(k.to_ne_bytes());
    }
    let raw = |kind, value| TcFilterBpfOption::Other(DefaultNla::new(kind, value));
    let options = [
        raw(TCA_BPF_OPS_LEN, count.to_ne_bytes().to_vec()),
        raw(TCA_BPF_OPS, code),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    let options = options.into_iter().map(TcOption::Bpf).collect();
    message.attributes.push(TcAttribute::Options(options));
    message
}

fn message(link: u32, kind: &str) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = link.cast_signed();
    message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    message
}
