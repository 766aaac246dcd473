//! The rules of a site: types, redirects, hosts and header lines; and rules that no request could match.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::Read as _;
use std::os::unix::fs::symlink;

use common::{body, errors, file, folder, options, packed, redirect, text, variant, warnings};
use mayfly_pack::pack_dir;
use mayfly_site::{Coding, Pack, Pages as _};

/// The media type that is sent for a single file.
fn type_of(name: &str, content: &[u8], toml: &str) -> String {
    let bytes = packed(&[
        (format!("www/{name}"), content),
        ("mayfly.toml".to_owned(), toml.as_bytes()),
    ]);
    let pack = Pack::open(&bytes).unwrap();
    let file = file(&pack, "", &format!("/{name}"));
    let identity = variant(&file, Coding::Identity).unwrap();
    let line = text(&identity.lines[identity.encoded..identity.typed]);
    let value = line.strip_prefix("Content-Type: ").unwrap();
    value.trim_end().to_owned()
}

#[test]
fn media_types() {
    for (name, wanted) in [
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.JS", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.rpm", "application/x-rpm"),
        ("a.jrd", "application/jrd+json"),
        ("a.m4s", "video/iso.segment"),
        ("a.cjs", "text/javascript; charset=utf-8"),
        ("a.woff", "font/woff"),
        ("a.woff2", "font/woff2"),
        ("a.otf", "font/otf"),
        ("a.ttf", "font/ttf"),
        ("a.ts", "video/mp2t"),
        ("a.m3u8", "application/vnd.apple.mpegurl"),
        ("a.jsonl", "application/jsonl"),
        ("a.jsonld", "application/ld+json"),
        ("a.geojson", "application/geo+json"),
        ("a.webmanifest", "application/manifest+json"),
        ("a.wasm", "application/wasm"),
        ("a.avif", "image/avif"),
        ("a.jxl", "image/jxl"),
        ("a.webp", "image/webp"),
        ("a.heic", "image/heic"),
        ("a.opus", "audio/ogg"),
        ("a.m4a", "audio/mp4"),
        ("a.glb", "model/gltf-binary"),
        ("a.md", "text/markdown; charset=utf-8"),
        ("a.ics", "text/calendar; charset=utf-8"),
        ("a.vcf", "text/vcard; charset=utf-8"),
        ("a.wgsl", "text/wgsl; charset=utf-8"),
        ("a.xhtml", "application/xhtml+xml"),
        ("a.map", "application/json"),
        ("a.apk", "application/vnd.android.package-archive"),
        ("a.tar.gz", "application/gzip"),
        ("a.unknown", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ] {
        assert_eq!(type_of(name, b"x", ""), wanted, "{name}");
    }
    let table = "[types]\nfoo = \"text/x-foo\"\nJS = \"a/b\"\n";
    assert_eq!(type_of("a.FOO", b"\xff", table), "text/x-foo");
    assert_eq!(type_of("a.js", b"x", table), "a/b");
    let list = "[[types]]\nfiles = \"/b/*\"\ntype = \"application/json\"\n[[types]]\nextension = \".Bar\"\ntype = \"a/b\"\n\
                [[types]]\nfiles = \"/b/c\"\ntype = \"c/d\"\n";
    for (name, wanted) in [
        ("b/client", "application/json"),
        ("b/c", "c/d"),
        ("client", "application/octet-stream"),
        ("x.bAR", "a/b"),
        ("b/x.bar", "a/b"),
    ] {
        assert_eq!(type_of(name, b"x", list), wanted, "{name}");
    }
    // Content that declares another character set.
    let html = |content: &[u8]| type_of("a.html", content, "");
    assert_eq!(html("<p>ü".as_bytes()), "text/html; charset=utf-8");
    assert_eq!(html(b"<p>\x1b$B$3\x1b(B"), "text/html");
    assert_eq!(html(b"<meta charset=iso-2022-jp>"), "text/html");
}

#[test]
fn redirects_that_nobody_can_ask_for() {
    let site = |from: &str| {
        let toml = format!("[[redirects]]\nfrom = \"{from}\"\nto = \"/new\"\n");
        [
            ("www/new".to_owned(), String::new()),
            ("mayfly.toml".to_owned(), toml),
        ]
    };
    for (from, wanted) in [
        ("/index.php?page=about", "a query is not part of the path"),
        ("/frag#top", "a fragment is never sent"),
        ("/a//b", "empty segments are removed from a request's path"),
        ("//", "empty segments are removed from a request's path"),
        ("/x/../y", "dot segments are removed from a request's path"),
        ("/x/.", "dot segments are removed from a request's path"),
        ("/a%2fb", "an escaped slash stays `%2F`"),
    ] {
        let errors = errors(&site(from));
        let wanted = format!("mayfly.toml:2: no client can request `{from}`: {wanted}");
        assert_eq!(errors, wanted);
    }
    for (from, wanted) in [
        (
            "/caf%C3%A9",
            "`/caf%C3%A9` is compared with the path that is asked for without its escapes: write `/café`",
        ),
        (
            "/old/*",
            "`/old/*` is one path: `*` stands for nothing else",
        ),
    ] {
        assert_eq!(warnings(&site(from)), format!("mayfly.toml:2: {wanted}"));
    }
    for from in ["/café", "/100%", "/a%2Fb", "/.well-known/x", "/a/", "/a b"] {
        assert_eq!(warnings(&site(from)), "", "{from}");
    }
    let long = format!("/{}", "ü".repeat(600));
    assert!(errors(&site(&long)).contains("no client can request"));
}

#[test]
fn paths_that_nobody_can_ask_for() {
    let deep = |segment: &str, count: usize| format!("www/{}/x", vec![segment; count].join("/"));
    // A path that fits into the head of a request.
    assert_eq!(warnings(&[(deep(&"d".repeat(100), 39), "")]), "");
    let longer = errors(&[(deep(&"d".repeat(100), 40), "")]);
    assert!(
        longer.contains("its path is longer than 4000 bytes"),
        "{longer}"
    );
    let never = errors(&[(deep(&"ü".repeat(50), 20), "")]);
    assert!(
        never.contains("its path is longer than 1024 bytes, the most for one with escapes"),
        "{never}"
    );
    let twice = errors(&[("www/a.test/x", ""), ("www/A.test/x", "")]);
    assert_eq!(twice, "www/a.test/x: is at the path of www/A.test/x");
}

#[test]
fn paths_of_the_guests_own_pages_are_named() {
    let files = [
        ("www/.mayfly/healthz", "x"),
        ("www/a.mayfly/healthz", "x"),
        ("mayfly.toml", "hidden = true"),
    ];
    assert_eq!(
        warnings(&files),
        "www/.mayfly/healthz: a page of the guest's own may be at its path, below /.mayfly/"
    );
}

#[test]
fn hosts_with_letters_beyond_ascii() {
    let toml = "default_host = \"bücher.example\"\n[hosts.\"bücher.example\"]\naliases = [\"www.bücher.example\"]\n\
                [[redirects]]\nhost = \"bücher.example\"\nfrom = \"/a\"\nto = \"/\"\n[zones.\"bücher.example\"]\ntransfer = true\n";
    let bytes = packed(&[
        ("www/bücher.example/index.html", "books"),
        ("www/other.test/index.html", "other"),
        (
            "zones/bücher.example.zone",
            "$TTL 5\n@ SOA ns h 1 2 3 4 5\n@ NS ns\n",
        ),
        ("mayfly.toml", toml),
    ]);
    let pack = Pack::open(&bytes).unwrap();
    for host in [
        "xn--bcher-kva.example",
        "www.xn--bcher-kva.example",
        "unknown",
    ] {
        assert_eq!(body(&pack, host, "/"), b"books");
        assert_eq!(redirect(&pack, host, "/a"), Some((301, "/".to_owned())));
    }
    assert_eq!(
        mayfly_pack::list(&pack).unwrap().zones[0].name,
        "xn--bcher-kva.example."
    );
    let wrong = errors(&[("www/x", ""), ("mayfly.toml", "[hosts.\"ü b\"]\n")]);
    assert!(
        wrong.starts_with("mayfly.toml:1: `ü b` is not a valid internationalized host name"),
        "{wrong}"
    );
}

#[test]
fn svg_in_gzip() {
    let svg = b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>".repeat(20);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &svg).unwrap();
    let bytes = packed(&[("www/a.svgz", encoder.finish().unwrap())]);
    let pack = Pack::open(&bytes).unwrap();
    let file = file(&pack, "", "/a.svgz");
    assert_eq!(variant(&file, Coding::Identity).unwrap().body, svg);
    let gzip = variant(&file, Coding::Gzip).unwrap();
    assert!(text(gzip.lines).contains("Content-Encoding: gzip\r\nContent-Type: image/svg+xml\r\n"));
    let mut decoded = Vec::new();
    flate2::read::GzDecoder::new(gzip.body)
        .read_to_end(&mut decoded)
        .unwrap();
    assert_eq!(decoded, svg);
    let wrong = errors(&[("www/a.svgz", &svg)]);
    assert!(
        wrong.starts_with("www/a.svgz: cannot be read: an .svgz is SVG in gzip, and this is not"),
        "{wrong}"
    );
}

#[test]
fn a_configuration_stays_in_the_site() {
    let other = folder(&[("mayfly.toml", "hidden = true\n")]);
    let site = folder(&[("www/.a", "a"), ("inside.toml", "hidden = true\n")]);
    symlink(
        other.path().join("mayfly.toml"),
        site.path().join("mayfly.toml"),
    )
    .unwrap();
    let problems = pack_dir(site.path(), &options()).err().unwrap();
    assert_eq!(
        problems.to_string(),
        "mayfly.toml: is a symbolic link out of the site"
    );
    std::fs::remove_file(site.path().join("mayfly.toml")).unwrap();
    symlink("nowhere.toml", site.path().join("mayfly.toml")).unwrap();
    let problems = pack_dir(site.path(), &options()).err().unwrap();
    assert!(
        problems
            .to_string()
            .starts_with("mayfly.toml: cannot be read: No such file")
    );
    std::fs::remove_file(site.path().join("mayfly.toml")).unwrap();
    symlink("inside.toml", site.path().join("mayfly.toml")).unwrap();
    assert!(pack_dir(site.path(), &options()).is_ok());

    let site = folder(&[("x", "")]);
    symlink("/nowhere", site.path().join("www")).unwrap();
    symlink("/nowhere", site.path().join("zones")).unwrap();
    let problems = pack_dir(site.path(), &options()).err().unwrap().to_string();
    assert_eq!(problems.lines().count(), 2, "{problems}");
}

#[test]
fn header_lines_with_what_is_not_there() {
    let toml = "[[headers]]\nfiles = \"/**\"\nset = { a = \"1\", b = \"1\" }\n[[headers]]\nfiles = \"/x/y/**\"\nset = { B = \"2\" }\n\
                [[headers]]\ntypes = \"text/*\"\nset = { c = \"3\" }\n[[headers]]\nfiles = \"/old\"\nset = { d = \"4\" }\n\
                [[redirects]]\nfrom = \"/old\"\nto = \"/i\"\n";
    let bytes = packed(&[
        ("www/i.html", "i"),
        ("www/h.test/x", ""),
        ("mayfly.toml", toml),
    ]);
    let pack = Pack::open(&bytes).unwrap();
    for (host, path, wanted) in [
        ("", "/", "a: 1\r\nb: 1\r\n"),
        ("", "/none", "a: 1\r\nb: 1\r\n"),
        ("h.test", "/none", "a: 1\r\nb: 1\r\n"),
        ("", "/x/none", "a: 1\r\nb: 1\r\n"),
        ("", "/x/y/none", "a: 1\r\nB: 2\r\n"),
        ("", "/x/y/z/none", "a: 1\r\nB: 2\r\n"),
        ("", "/x/yy/none", "a: 1\r\nb: 1\r\n"),
        ("", "/i.html", "a: 1\r\nb: 1\r\nc: 3\r\n"),
        ("", "/old", "a: 1\r\nb: 1\r\nc: 3\r\nd: 4\r\n"),
        ("", "", ""),
    ] {
        let lines = pack.lines(host.as_bytes(), path.as_bytes()).unwrap();
        assert_eq!(text(lines), wanted, "{host}{path}");
    }
    let plain = packed(&[("www/i", "")]);
    assert_eq!(
        Pack::open(&plain).unwrap().lines(b"", b"/a/b/c"),
        Ok(&b""[..])
    );
    let wrong = errors(&[
        ("www/i", ""),
        (
            "mayfly.toml",
            "[[headers]]\nset = { Content-Type = \"a/b\" }\n",
        ),
    ]);
    assert_eq!(
        wrong,
        "mayfly.toml:2: the server writes `Content-Type` itself: see `[[types]]`"
    );
}
