//! Tests of one status in all its forms.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Instant;

use mayfly_switch::port::Traffic;
use mayfly_toolstack::builder::Network;

use super::*;

const BOUND: Duration = Duration::from_secs(5);

/// A name that acts as markup, ends a label, or controls a terminal unless it is escaped.
const HOSTILE: &str = "a\"<script>alert(1)</script>&\\\n\u{1b}[2J";

fn status() -> SummonStatus {
    let step = |what: &str, from_us, to_us| BirthStep {
        what: what.to_owned(),
        from_us,
        to_us,
    };
    let www = ServiceStatus {
        name: "www".into(),
        hosts: vec!["www.example.test".into(), "example.test".into()],
        state: ShownState::Running,
        domid: Some(7),
        uptime_ms: Some(61_000),
        births: 3,
        resumes: 0,
        deaths: 2,
        last_boot: vec![
            step("query", 0, 0),
            step("domain", 150, 9_400),
            step("connects (netback)", 2_000, 10_100),
            step("SYN-ACK", 11_234, 11_234),
        ],
        memory: 8,
        queries: 5,
        requests: Some(12),
        frames: FrameCounts {
            held: 2,
            replayed: 1,
            dropped: 1,
        },
        guarded: 4,
        traffic: Some(NetworkTraffic {
            network: Network::Switch,
            sent: Traffic {
                frames: 20,
                bytes: 12_345,
            },
            received: Traffic {
                frames: 10,
                bytes: 678,
            },
            dropped: 5,
            drops: [("guard: source".into(), 4), ("bad size".into(), 1)].into(),
        }),
        ..ServiceStatus::default()
    };
    let other = ServiceStatus {
        name: HOSTILE.into(),
        hosts: vec![HOSTILE.into()],
        state: ShownState::BackedOff,
        failures: 1,
        last_boot: vec![step("SYN", 0, 0)],
        last_trouble: Some(HOSTILE.into()),
        ..ServiceStatus::default()
    };
    SummonStatus {
        uptime_ms: 3_600_000,
        services: vec![www, other],
        totals: Totals {
            queries: [("noerror".into(), 5), ("refused".into(), 1)].into(),
            wakes: [("dns".into(), 2), ("syn".into(), 1)].into(),
            running: 1,
            memory: 8,
            ..Totals::default()
        },
    }
}

#[test]
fn json_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("below/summon");
    assert_eq!(ask(&socket, BOUND).unwrap(), None);
    let doer = |request: ServiceCommand| match request.service.as_str() {
        "www" => Ok(()),
        other => Err(format!("there is no service {other:?}")),
    };
    assert!(tell(&socket, || Arc::new(status()), doer).unwrap());
    for (service, done) in [
        ("www", Ok(())),
        ("ww", Err("there is no service \"ww\"".to_owned())),
    ] {
        let wanted = ServiceCommand {
            service: service.into(),
            command: Command::Wake,
        };
        assert_eq!(request(&socket, wanted, BOUND).unwrap(), Some(done));
    }
    // A silent client does not keep others out.
    let silent = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    assert_eq!(ask(&socket, BOUND).unwrap(), Some(status()));
    assert!(
        !tell(&socket, || Arc::new(status()), doer).unwrap(),
        "two at one socket"
    );
    drop(silent);
}

#[test]
fn the_table_has_a_row_for_each() {
    let text = table(&status(), None);
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].starts_with("Service ")
            && lines[0].contains("Back end")
            && lines[0].contains("Last birth"),
        "{text}"
    );
    let words: Vec<_> = lines[1].split_whitespace().collect();
    assert_eq!(
        words,
        [
            "www", "running", "switch", "7", "1", "min", "1", "s", "3", "0", "11.23", "ms", "8",
            "12", "-"
        ]
    );
    assert!(
        lines[2].contains("backed-off") && !text.contains('\u{1b}'),
        "{text}"
    );
    assert_eq!(
        *lines.last().unwrap(),
        "1 of 2 run in 8 MiB, 0 wait for room, 0 are ready in the pool; up for 1 h 0 min"
    );
    assert!(
        table(&status(), Some(60))
            .lines()
            .all(|line| line.chars().count() <= 100)
    );
}

#[test]
fn prometheus_text() {
    let text = metrics::text(&status());
    for line in [
        "hatch_summon_queries_total{answer=\"noerror\"} 5",
        "hatch_summon_wakes_total{cause=\"syn\"} 1",
        "hatch_summon_running 1",
        "hatch_summon_memory_bytes 8388608",
        "hatch_summon_service_state{service=\"www\",state=\"running\"} 1",
        "hatch_summon_service_state{service=\"www\",state=\"asleep\"} 0",
        "hatch_summon_service_births_total{service=\"www\"} 3",
        "hatch_summon_service_last_boot_seconds{service=\"www\"} 0.011234",
        "hatch_summon_service_sent_bytes{service=\"www\"} 12345.0",
        "hatch_summon_service_received_frames{service=\"www\"} 10.0",
        "hatch_summon_service_back_end_drops{service=\"www\",cause=\"guard: source\"} 4.0",
        "hatch_summon_service_guarded_frames_total{service=\"www\"} 4",
        "# TYPE hatch_summon_service_uptime_seconds gauge",
        "# EOF",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "no {line} in\n{text}"
        );
    }
    // The name is the value of one label, in one line.
    let escaped = r#"{service="a\"<script>alert(1)</script>&\\\n"#;
    assert!(text.contains(escaped), "{text}");
    for line in text.lines() {
        assert!(
            line.starts_with("hatch_summon_") || line.starts_with('#'),
            "{line:?}"
        );
    }
}

#[test]
fn the_page_has_everything_and_runs_nothing() {
    let page = page::page(&status());
    for part in [
        "<th scope=\"row\">www</th>",
        "<span class=\"state running\">running</span>",
        "1 of 2 services run, in 8 MiB",
        "<title id=\"t0\">The last birth of www</title>",
        "SYN-ACK at 11.23 ms;",
        "<td>switch</td><td>20</td><td>12345</td><td>10</td><td>678</td>",
        "<td>5 (1 bad size, 4 guard: source)</td>",
        "No guest was made yet.",
    ] {
        assert!(page.contains(part), "no {part} in\n{page}");
    }
    assert!(
        !page.contains("<script") && !page.contains(" style=") && !page.contains(" on"),
        "{page}"
    );
    // Two bars and two moments, and none in the other's place.
    assert_eq!(page.matches("class=\"bar\"").count(), 2);
    assert_eq!(page.matches("class=\"moment\"").count(), 2);
    assert_eq!(page.matches("<svg").count(), 1);
}

#[test]
fn a_picture_of_anything() {
    for (from_us, to_us) in [(0, 0), (u64::MAX, u64::MAX), (u64::MAX, 0), (0, u64::MAX)] {
        let step = BirthStep {
            what: "x".into(),
            from_us,
            to_us,
        };
        let svg = picture::waterfall(0, "x", &vec![step; 100]).into_string();
        assert_eq!(svg.matches("<rect").count(), 64);
    }
    assert!(
        picture::waterfall(0, "x", &[])
            .into_string()
            .contains("0 steps")
    );
}

fn server() -> SocketAddr {
    serve(([127, 0, 0, 1], 0).into(), || Arc::new(status())).unwrap()
}

fn asked(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn http_answers() {
    let address = server();
    let get = |path: &str| asked(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    let page = get("/?now");
    assert!(
        page.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/html"),
        "{page}"
    );
    assert!(page.contains("default-src 'none'; style-src 'self'") && page.ends_with("</html>"));
    assert!(get("/style.css").contains("prefers-color-scheme: dark"));
    assert!(get("/metrics").ends_with("# EOF\n"));
    let json = get("/status.json");
    let body = json.split("\r\n\r\n").nth(1).unwrap();
    assert_eq!(
        serde_json::from_str::<SummonStatus>(body).unwrap(),
        status()
    );
    assert!(get("/../etc/passwd").starts_with("HTTP/1.1 404 "));
    let head = asked(address, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    let post = asked(
        address,
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    );
    assert!(
        post.starts_with("HTTP/1.1 405 ") && post.contains("\r\nAllow: GET, HEAD\r\n"),
        "{post}"
    );
    assert!(asked(address, "what\r\n\r\n").starts_with("HTTP/1.1 400 "));
    let long = format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(http::HEAD_MAX));
    assert!(asked(address, &long).starts_with("HTTP/1.1 431 ") || asked(address, &long).is_empty());
}

/// Silent clients have their time, and then others are served.
#[test]
fn slow_clients_bound_nobody() {
    let address = server();
    let start = Instant::now();
    let silent: Vec<_> = (0..server::CLIENTS_MAX + 4)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let whole = loop {
        let answer = asked(address, "GET / HTTP/1.1\r\n\r\n");
        if answer.starts_with("HTTP/1.1 200 ") {
            break start.elapsed();
        }
        assert!(start.elapsed() < 4 * BOUND, "nobody is served any more");
    };
    assert!(
        whole >= BOUND / 2,
        "the slow ones were not served: {whole:?}"
    );
    drop(silent);
    // A client that disconnects early causes no error.
    let mut gone = TcpStream::connect(address).unwrap();
    gone.write_all(b"GET / HT").unwrap();
    gone.shutdown(Shutdown::Both).unwrap();
    assert!(asked(address, "GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200 "));
}
