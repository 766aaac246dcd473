//! The fuzzer of the whole guest: mutated frames.
//!
//! A case is a short sequence of frames. Each begins as a valid one (of a live TCP connection with the right numbers,
//! if it is a segment), and most are then changed: fields, lengths, options, payload, order. Checksums are corrected
//! most of the time, because a frame with a wrong one is dropped early. One seed makes one guest and all of its cases,
//! so that a failure can be repeated.

mod mutate;
mod payload;
mod peer;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::IpAddr;

use crate::client::{Client, guest4, guest6};
use crate::frames::{self, Question};
use crate::random::Random;
use crate::{GUEST_MAC, Net, SECOND, STEP_NS, Setup};
use mayfly::stack::{LARGE, Sizing};
use mayfly_drivers::SystemTime;
use mayfly_drivers::fake::Packet;
use mayfly_http::LOANS;
use mayfly_site::RENDERED_MAX;
use peer::Peers;

/// The most steps that the guest may take for one case without time passing, besides one for each 16 frames.
const MAX_STEPS: u64 = 32;
/// The number of cases after which the peers announce themselves again: the guest forgets a neighbour in 60 s.
const HELLO_EVERY: u64 = 50;
/// The most frames that the guest may send for one case.
const MAX_SENT: usize = 600;
/// The number of frames that are printed when a case fails.
const WITNESSED: usize = 32;
/// The time, in seconds, in which the guest must answer a good client after an attack. The attack may have taken every
/// socket, and its deadlines are 10 to 20 s.
const RECOVERY: f64 = 60.0;

/// The totals of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Sequences of frames.
    pub cases: u64,
    /// Guests booted.
    pub guests: u64,
    /// Frames delivered.
    pub frames: u64,
    /// Frames that the guest sent.
    pub sent: u64,
    /// Steps of the guest.
    pub steps: u64,
    /// The most steps for one case.
    pub most_steps: u64,
    /// TCP connections that were established.
    pub established: u64,
    /// HTTP responses.
    pub http: u64,
    /// DNS answers.
    pub dns: u64,
    /// Frames dropped for a wrong TCP or UDP checksum.
    pub bad_checksums: u64,
    /// Connections that were evicted for others.
    pub evicted: u64,
    /// Half-open connections that were evicted for others.
    pub half_open_evicted: u64,
    /// Good clients served after an attack.
    pub checks: u64,
    /// The longest wait of one of them for either answer, in virtual ms.
    pub longest_wait_ms: u64,
    /// Virtual seconds.
    pub seconds: u64,
    /// The most bytes of socket buffers that a guest has taken.
    pub socket_bytes: usize,
    /// Bytes of socket buffers that all guests have taken.
    pub all_socket_bytes: usize,
    /// The largest growth of a guest's heap after its boot, in bytes, without socket buffers.
    pub heap_growth: usize,
}

impl Figures {
    /// Adds another guest's figures.
    pub fn add(&mut self, other: &Self) {
        self.cases += other.cases;
        self.guests += other.guests;
        self.frames += other.frames;
        self.sent += other.sent;
        self.steps += other.steps;
        self.most_steps = self.most_steps.max(other.most_steps);
        self.established += other.established;
        self.http += other.http;
        self.dns += other.dns;
        self.bad_checksums += other.bad_checksums;
        self.evicted += other.evicted;
        self.half_open_evicted += other.half_open_evicted;
        self.checks += other.checks;
        self.longest_wait_ms = self.longest_wait_ms.max(other.longest_wait_ms);
        self.seconds += other.seconds;
        self.socket_bytes = self.socket_bytes.max(other.socket_bytes);
        self.all_socket_bytes += other.all_socket_bytes;
        self.heap_growth = self.heap_growth.max(other.heap_growth);
    }
}

/// The guest's addresses.
fn addresses(net: &Net<'_>) -> impl Iterator<Item = IpAddr> {
    let own = net.guest.stack.addresses();
    own.iter().map(|own| own.address().into())
}

/// The most bytes of socket buffers that a guest may take.
fn socket_bytes(sizing: &Sizing) -> usize {
    let http = sizing.http * (sizing.tcp_rx + sizing.http_tx) + LARGE * sizing.http_tx_large;
    let dns = sizing.dns_tcp * (sizing.tcp_rx + sizing.dns_tx) + LARGE * sizing.dns_tx_large;
    http + dns
}

/// The largest growth that a guest's heap may have besides, in bytes: a socket and its connection for each connection,
/// and the pages that are made for requests.
fn heap_bytes(sizing: &Sizing) -> usize {
    (sizing.http + sizing.dns_tcp) * 4096 + 2 * LOANS * RENDERED_MAX + (128 << 10)
}

/// Prints what led to a failure when the test panics.
struct Witness {
    seed: u64,
    case: u64,
    /// The last frames, oldest first, and the case of each.
    frames: VecDeque<(u64, Packet)>,
}

impl Witness {
    fn note(&mut self, packet: Packet) {
        if self.frames.len() == WITNESSED {
            self.frames.pop_front();
        }
        self.frames.push_back((self.case, packet));
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut text = format!("seed {}, case {}:\n", self.seed, self.case);
            for (case, frame) in &self.frames {
                let (flags, offset) = (frame.flags, frame.offset);
                let _ = write!(text, "case {case}, flags {flags}, offset {offset}: ");
                for byte in &frame.bytes {
                    let _ = write!(text, "{byte:02x}");
                }
                text.push('\n');
            }
            eprintln!("{text}");
        }
    }
}

/// Runs one guest and its cases. If it serves a pack, that must have the zone and the front page that are asked for
/// after every `check_every` cases. `heap` returns the bytes of heap in use.
///
/// # Panics
/// If the guest does something that it must not. The seed and the frames are printed.
#[must_use]
pub fn attack(
    seed: u64,
    cases: u64,
    check_every: u64,
    pack: Option<&'static [u8]>,
    heap: impl Fn() -> usize,
) -> Figures {
    let mut random = Random::new(seed);
    let cmdline = random.pick(&[
        crate::CMDLINE,
        "ip=10.0.2.80/24 ip=fd00::80/64",
        "ip=dhcp ip=fd00::80/64 gw=fd00::2 console=off",
    ]);
    let ram = random.pick(&[1 << 17, 1 << 19, 1 << 20, 16 << 20]);
    let mtu: u16 = random.pick(&[1500, 1500, 1280, 576]);
    let mut setup = Setup::new().cmdline(cmdline).ram(ram);
    setup.pack = pack;
    setup.xen.with(|world| {
        let mtu = mtu.to_string();
        world.store.set(b"device/vif/0/mtu", mtu.as_bytes());
    });
    let sizing = setup.sizing;
    let mut witness = Witness {
        seed,
        case: 0,
        frames: VecDeque::new(),
    };
    setup.run(|net| {
        let mut attack = Attack {
            peers: Peers::new(random),
            witness: &mut witness,
            own: Vec::new(),
            figures: Figures {
                guests: 1,
                ..Figures::default()
            },
        };
        let start = net.now().0;
        attack.settle(net, 0);
        let (base, base_sockets) = (heap(), net.handed_out);
        for case in 1..=cases {
            attack.witness.case = case;
            attack.case(net);
            if case % check_every == 0 || case == cases {
                attack.check(net, cmdline);
                let figures = &mut attack.figures;
                figures.socket_bytes = figures.socket_bytes.max(net.handed_out);
                assert!(net.handed_out <= socket_bytes(&sizing), "socket buffers");
                let growth = heap().saturating_sub(base);
                let growth = growth.saturating_sub(net.handed_out - base_sockets);
                figures.heap_growth = figures.heap_growth.max(growth);
                assert!(
                    growth <= heap_bytes(&sizing),
                    "the heap grew by {growth} bytes"
                );
            }
        }
        let stats = net.guest.stack.stats();
        let (dns, http) = (net.guest.stack.dns(), net.guest.stack.http());
        let mut figures = attack.figures;
        figures.cases = cases;
        figures.all_socket_bytes = net.handed_out;
        figures.steps = net.steps;
        figures.http = (2..6).map(|class| http.class(class)).sum();
        figures.dns = (dns.udp + dns.tcp).into();
        figures.evicted = stats.evicted;
        figures.half_open_evicted = stats.half_open_evicted;
        figures.bad_checksums = net.guest.nic.bad_checksums();
        figures.established = attack.peers.established;
        figures.seconds = (net.now().0 - start) / SECOND;
        figures
    })
}

struct Attack<'w> {
    peers: Peers,
    witness: &'w mut Witness,
    figures: Figures,
    /// The guest's addresses at the last look.
    own: Vec<IpAddr>,
}

impl Attack<'_> {
    fn case(&mut self, net: &mut Net<'_>) {
        if self.witness.case % HELLO_EVERY == 1 {
            for frame in Peers::hello() {
                net.deliver(&frame);
            }
            self.settle(net, 16);
        }
        let frames = self.peers.sequence();
        let count = frames.len();
        self.figures.frames += count as u64;
        let one_by_one = self.peers.random.one_in(2);
        for bytes in frames {
            let packet = self.peers.packet(bytes);
            self.witness.note(packet.clone());
            net.xen.with(|world| world.netback.deliver(packet));
            if one_by_one {
                self.settle(net, 1);
            }
        }
        self.settle(net, count);
        let pause = self.peers.pause();
        self.pass(net, pause);
        assert_eq!(net.violations(), [""; 0]);
        assert_eq!(net.xen.with(|world| world.machine.shutdown), None);
    }

    /// Lets the guest work until it wants to sleep. Only its steps take time.
    fn settle(&mut self, net: &mut Net<'_>, frames: usize) {
        let allowed = MAX_STEPS + frames as u64 / 16;
        for step in 1.. {
            assert!(
                step <= allowed,
                "the guest does not come to rest in {step} steps"
            );
            self.figures.most_steps = self.figures.most_steps.max(step);
            net.xen.run();
            let wake = net.step();
            self.look(net);
            // The immediate answers of peers are work again.
            if wake.is_some() && net.xen.with(|world| world.netback.waiting() == 0) {
                break;
            }
        }
    }

    /// Reads the frames that the guest has sent, and answers for the neighbours.
    fn look(&mut self, net: &mut Net<'_>) {
        // DHCP may have changed the address in this very step.
        self.own.extend(addresses(net));
        let sent = net.sent();
        self.figures.sent += sent.len() as u64;
        assert!(sent.len() <= MAX_SENT, "{} frames at once", sent.len());
        for frame in sent {
            assert!(
                (14..=1514).contains(&frame.len()),
                "a frame of {} bytes",
                frame.len()
            );
            assert_eq!(frame[6..12], GUEST_MAC, "another sender");
            let mut fixed = frame.clone();
            frames::fix_checksums(&mut fixed);
            assert_eq!(fixed, frame, "a wrong checksum");
            let source = frames::source(&frame).filter(|source| !source.is_unspecified());
            assert!(
                source.is_none_or(|source| self.own.contains(&source)),
                "a frame from {source:?}"
            );
            if let Some(answer) = self.peers.notice(&frame) {
                self.figures.frames += 1;
                net.deliver(&answer);
            }
        }
        self.own.clear();
        self.own.extend(addresses(net));
    }

    /// Lets time pass.
    fn pass(&mut self, net: &mut Net<'_>, nanoseconds: u64) {
        let end = SystemTime(net.now().0 + nanoseconds);
        // Retransmissions and announcements: a few for each second and connection. Each answer of a peer ends a sleep
        // as well.
        let allowed = 200 + nanoseconds / SECOND * 100;
        let (before, mut steps) = (self.figures.frames, 0);
        while net.now() < end {
            steps += 1;
            let answers = self.figures.frames - before;
            assert!(steps < allowed + 2 * answers, "the guest does not sleep");
            if let Some(wake) = net.step() {
                net.sleep(wake, end);
            }
            self.look(net);
        }
    }

    /// Sends a good client's queries and requests, and checks that they are answered.
    fn check(&mut self, net: &mut Net<'_>, cmdline: &str) {
        let address = if cmdline.contains("dhcp") || self.peers.random.one_in(2) {
            guest6()
        } else {
            guest4()
        };
        net.client = Client::with_addresses(net.xen, [2, 0, 0, 0, 0, 9], [10, 0, 2, 9], 9);
        let start = net.now().0;
        let answer = net.dns_within(address, &Question::a("ns.mayfly.test"), RECOVERY);
        let Some(answer) = answer else {
            panic!("no DNS answer from {address} after the attack");
        };
        assert_eq!(
            (answer[3] & 15, answer[2] & 0x84),
            (0, 0x84),
            "NOERROR, authoritative"
        );
        let middle = net.now().0;
        let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let Some(page) = net.http_within(address, request, RECOVERY) else {
            let stats = net.guest.stack.stats();
            panic!("no HTTP answer from {address} after the attack: {stats:?}");
        };
        assert!(page.starts_with(b"HTTP/1.1 200 OK\r\n"));
        let waits = [middle - start, net.now().0 - middle];
        let longest = waits.iter().max().map_or(0, |ns| ns / 1_000_000);
        self.figures.longest_wait_ms = self.figures.longest_wait_ms.max(longest);
        self.figures.checks += 1;
        self.peers.forget();
        net.xen.with(|world| {
            world.machine.debug.clear();
            world.store.requests.clear();
        });
        assert_eq!(net.violations(), [""; 0]);
        let now = net.now().0;
        net.xen
            .with(|world| world.machine.advance_to(now + STEP_NS));
    }
}
