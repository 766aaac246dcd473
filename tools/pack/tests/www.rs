//! Web roots: the resource at each path of each host, and errors in the site.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::Read as _;
use std::os::unix::fs::symlink;

use common::{body, errors, file, folder, options, packed, redirect, text, variant, warnings};
use mayfly_pack::pack_dir;
use mayfly_site::{Coding, Pack, Pages, Resource};

#[test]
fn hosts_and_paths() {
    let bytes = packed(&common::sample());
    let pack = Pack::open(&bytes).unwrap();
    for (host, path, content) in [
        ("", "/404.html", &b"nothing here\n"[..]),
        ("unknown.test", "/404.html", b"nothing here\n"),
        ("", "/a/b/", b"b\n"),
        ("", "/a/b/index.html", b"b\n"),
        ("", "/empty", b""),
        ("www.example.test", "/", b"a host\n"),
        ("other.test", "/index.html", b"a host\n"),
    ] {
        assert_eq!(body(&pack, host, path), content, "{host}{path}");
    }
    assert_eq!(redirect(&pack, "", "/a/b"), Some((301, "/a/b/".to_owned())));
    assert_eq!(redirect(&pack, "", "/old"), Some((308, "/a/b/".to_owned())));
    assert_eq!(
        redirect(&pack, "other.test", "/old"),
        Some((308, "/a/b/".to_owned()))
    );
    for (host, path) in [
        ("", "/a"),
        ("", "/a/"),
        ("", ""),
        ("", "404.html"),
        ("", "/empty/"),
        ("", "//"),
        ("other.test", "/empty"),
        ("", "/www.example.test/index.html"),
        ("", "\0\u{1}\u{94}"),
    ] {
        assert_eq!(redirect(&pack, host, path), None, "{host}{path}");
    }
    let page = pack.error_page(b"", 404).unwrap().unwrap();
    assert_eq!(
        variant(&page, Coding::Identity).unwrap().body,
        b"nothing here\n"
    );
    assert!(pack.error_page(b"", 500).unwrap().is_none());
    assert!(pack.error_page(b"other.test", 404).unwrap().is_none());

    // Equal bodies are stored once, and large ones begin at a page of their own.
    let [one, other] = ["/a/data.bin", "/same.bin"].map(|path| body(&pack, "", path));
    assert_eq!((one.as_ptr(), one), (other.as_ptr(), &[7; 70_000][..]));
    assert_eq!((one.as_ptr() as usize - bytes.as_ptr() as usize) % 4096, 0);
}

#[test]
fn header_lines_and_variants() {
    let packed = packed(&common::sample());
    let pack = Pack::open(&packed).unwrap();
    let index = file(&pack, "", "/");
    assert_eq!(index.modified, 1_000_000_000);
    let content = "<p>hello</p>\n".repeat(100).into_bytes();
    let sizes: Vec<_> = index
        .variants
        .iter()
        .flatten()
        .map(|variant| variant.body.len())
        .collect();
    assert_eq!(sizes.len(), 4);
    assert!(sizes.is_sorted());
    let mut tags = Vec::new();
    for (coding, name) in [
        (Coding::Identity, ""),
        (Coding::Gzip, "Content-Encoding: gzip\r\n"),
        (Coding::Brotli, "Content-Encoding: br\r\n"),
        (Coding::Zstd, "Content-Encoding: zstd\r\n"),
    ] {
        let variant = variant(&index, coding).unwrap();
        let tag = text(variant.etag);
        tags.push(tag.to_owned());
        assert_eq!(
            text(&variant.lines[..variant.common]),
            format!(
                "ETag: {tag}\r\nLast-Modified: Sun, 09 Sep 2001 01:46:40 GMT\r\n\
                 Cache-Control: max-age=60\r\nVary: Accept-Encoding\r\nAccept-Ranges: bytes\r\n\
                 X-Frame-Options: DENY\r\n"
            )
        );
        assert_eq!(text(&variant.lines[variant.common..variant.encoded]), name);
        assert_eq!(
            text(&variant.lines[variant.encoded..]),
            format!(
                "Content-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n",
                variant.body.len()
            )
        );
        let mut decoded = Vec::new();
        match coding {
            Coding::Identity => decoded.extend(variant.body),
            Coding::Gzip => {
                flate2::read::GzDecoder::new(variant.body)
                    .read_to_end(&mut decoded)
                    .unwrap();
            }
            Coding::Brotli => {
                brotli::BrotliDecompress(&mut &variant.body[..], &mut decoded).unwrap();
            }
            Coding::Zstd => decoded = zstd::decode_all(variant.body).unwrap(),
        }
        assert_eq!(decoded, content);
    }
    assert!(
        tags.iter()
            .all(|tag| tag.starts_with('"') && tag.ends_with('"') && tag.len() >= 34)
    );
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4);

    // Small or binary files have no variants, and so do not vary.
    for path in ["/a/data.bin", "/empty", "/404.html"] {
        let file = file(&pack, "", path);
        assert_eq!(file.variants.iter().flatten().count(), 1);
        let identity = variant(&file, Coding::Identity).unwrap();
        assert!(!text(identity.lines).contains("Vary"));
        let tag = variant(&index, Coding::Identity).unwrap().etag;
        assert_ne!(identity.etag, tag);
    }
    let data = variant(&file(&pack, "", "/a/data.bin"), Coding::Identity).unwrap();
    assert!(text(data.lines).contains("Content-Type: application/octet-stream\r\n"));
}

#[test]
fn names_of_files() {
    let bytes = packed(&[
        ("www/ä b/index.html", "x"),
        ("www/100%.txt", "y"),
        ("www/.well-known/z", "z"),
        ("www/v1.2/a", "v"),
        ("www/jquery.min/a", "j"),
        (
            "mayfly.toml",
            "folders = [\"jquery.min\"]\n[types]\nx = \"a/b\"\n",
        ),
        ("www/f.x", "f"),
    ]);
    let pack = Pack::open(&bytes).unwrap();
    assert_eq!(
        redirect(&pack, "", "/ä b"),
        Some((301, "/%C3%A4%20b/".to_owned()))
    );
    for (path, content) in [
        ("/ä b/", "x"),
        ("/100%.txt", "y"),
        ("/.well-known/z", "z"),
        ("/v1.2/a", "v"),
        ("/jquery.min/a", "j"),
    ] {
        assert_eq!(text(body(&pack, "", path)), content);
    }
    let typed = variant(&file(&pack, "", "/f.x"), Coding::Identity).unwrap();
    assert_eq!(
        text(&typed.lines[typed.encoded..typed.typed]),
        "Content-Type: a/b\r\n"
    );
    assert_eq!(
        warnings(&[("www/a", ""), ("www/.git/config", ""), ("www/.b", "")]),
        "www/.b: is left out, because its name begins with a dot (`hidden = true` packs it)\n\
         www/.git: is left out, because its name begins with a dot (`hidden = true` packs it)"
    );
    let bytes = packed(&[("www/.b", "b"), ("mayfly.toml", "hidden = true")]);
    assert_eq!(body(&Pack::open(&bytes).unwrap(), "", "/.b"), b"b");

    use std::os::unix::ffi::OsStrExt as _;
    for (name, wanted) in [
        (&b"www/a\x01b"[..], "its name has a control character"),
        (b"www/a\xffb", "its name is not UTF-8"),
        (b"www/a%2fb", "its name has %2F, which a path cannot hold"),
        (b"www/zones.a/x\ny", "its name has a control character"),
    ] {
        let errors = errors(&[(std::ffi::OsStr::from_bytes(name), "")]);
        assert!(errors.ends_with(wanted), "{errors}");
    }
}

#[test]
fn which_host_is_the_default() {
    let default = |files: &[(&str, &str)], path| {
        let bytes = packed(files);
        let pack = Pack::open(&bytes).unwrap();
        let found = pack.resource(b"unknown", path).unwrap();
        matches!(found, Some(Resource::File(_)))
    };
    let one = [("www/a.test/x", "")];
    let two = [("www/a.test/x", ""), ("www/b.test/y", "")];
    assert!(default(&one, b"/x"));
    assert!(!default(&two, b"/x") && !default(&two, b"/y"));
    let chosen = [two[0], two[1], ("mayfly.toml", "default_host = \"b.test\"")];
    assert!(default(&chosen, b"/y") && !default(&chosen, b"/x"));
    let named = [("www/x", ""), ("mayfly.toml", "default_host = \"b.test\"")];
    assert!(default(&named, b"/x"));
}

#[test]
fn what_the_configuration_must_not_say() {
    for (toml, wanted) in [
        ("x = 1", "1: unknown field `x`"),
        ("\n\n[[cache]]\nfiles = \"a\"", "3: missing field `control`"),
        ("= 1", "1: "),
        (
            "default_host = \"b.test\"",
            "1: the files right below www/ are of no host, as the default host has a folder",
        ),
        (
            "[hosts.\"c.test\"]",
            "1: there is no folder www/c.test with files in it",
        ),
        (
            "[hosts.\"C.test\"]",
            "1: `C.test` is not the name of a host in lower case",
        ),
        (
            "[hosts.\"b.test\"]\naliases = [\"b.test\"]",
            "2: `b.test` is the name of another host as well",
        ),
        (
            "[hosts.\"b.test\"]\naliases = [\"a b\"]",
            "2: `a b` is not the name of a host in lower case",
        ),
        (
            "[hosts.\"b.test\"]\nerror_pages = { 404 = \"/no\" }",
            "2: the host has no file `/no`",
        ),
        (
            "[error_pages]\n200 = \"/i\"",
            "2: `200` is not the status of an error",
        ),
        (
            "[[cache]]\nfiles = \"[\"\ncontrol = \"x\"",
            "2: error parsing glob",
        ),
        (
            "[[cache]]\ncontrol = \"a\\r\\nb\"",
            "2: the value of `Cache-Control` has characters that a header line cannot hold",
        ),
        (
            "[[headers]]\nset = { \"a b\" = \"x\" }",
            "2: `a b` is not the name of a header field",
        ),
        (
            "[[headers]]\nset = { \"a:\" = \"x\" }",
            "2: `a:` is not the name of a header field",
        ),
        (
            "[[headers]]\nset = { content-LENGTH = \"1\" }",
            "2: the server writes `content-LENGTH` itself",
        ),
        (
            "[[headers]]\nset = { a = \"x\\r\\ny: z\" }",
            "2: the value of `a` has characters that a header line cannot hold",
        ),
        (
            "[[headers]]\nset = { a = \"\\u0000\" }",
            "2: the value of `a` has characters",
        ),
        ("[types]\nx = \"text\"", "2: `text` is not a media type"),
        ("[types]\nx = \"text/\"", "2: `text/` is not a media type"),
        ("[types]\nx = \"a/b/c\"", "2: `a/b/c` is not a media type"),
        (
            "[types]\nx = \"text/html charset=utf-8\"",
            "2: `text/html charset=utf-8` is not a media type",
        ),
        (
            "[types]\nx = \"a/b; utf-8\"",
            "2: `a/b; utf-8` is not a media type",
        ),
        (
            "[[headers]]\nfiles = \"assets/**\"\nset = { a = \"x\" }",
            "2: no path fits `assets/**`: paths begin with a slash",
        ),
        (
            "[[types]]\nfiles = \"a.js\"\ntype = \"a/b\"",
            "2: no path fits `a.js`",
        ),
        (
            "[types]\nx = \"a/b\\r\\n\"",
            "2: `a/b\r\n` is not a media type",
        ),
        (
            "[[redirects]]\nfrom = \"a\"\nto = \"/\"",
            "2: `a` is not a path",
        ),
        (
            "[[redirects]]\nfrom = \"/a\"\nto = \"/ü\"",
            "3: `/ü` is neither a path nor a URI, percent-encoded",
        ),
        (
            "[[redirects]]\nfrom = \"/a\"\nto = \"/\\r\\nx\"",
            "3: `/\r\nx` is neither",
        ),
        (
            "[[redirects]]\nfrom = \"/a\"\nto = \"b\"",
            "3: `b` is neither a path nor a URI",
        ),
        (
            "[[redirects]]\nfrom = \"/a\"\nto = \"/\"\nstatus = 200",
            "1: status 200: it may be 301, 302, 307 or 308",
        ),
        (
            "[[redirects]]\nfrom = \"/i\"\nto = \"/\"",
            "2: there is something else at `/i`",
        ),
        (
            "[[redirects]]\nfrom = \"/\"\nto = \"/x\"\nhost = \"b.test\"",
            "2: there is something else at `/`",
        ),
        (
            "[[redirects]]\nhost = \"c.test\"\nfrom = \"/a\"\nto = \"/x\"",
            "2: there is no folder www/c.test",
        ),
        (
            "[[redirects]]\nfrom = \"/a\"\nto = \"/%61?q#f\"",
            "1: the redirect from `/a` leads back to it",
        ),
        (
            "[[redirects]]\nfrom = \"/a\"\nto = \"/b\"\n[[redirects]]\nfrom = \"/b\"\nto = \"/a\"",
            "1: the redirect from `/a` leads back to it",
        ),
    ] {
        let errors = errors(&[
            ("www/i", ""),
            ("www/b.test/index.html", ""),
            ("mayfly.toml", toml),
        ]);
        let wanted = format!("mayfly.toml:{wanted}");
        assert!(errors.starts_with(&wanted), "{errors}\n{wanted}");
    }
}

#[test]
fn what_cannot_be_packed() {
    let site = folder(&[
        ("www/a", "a"),
        ("zones/t.zone", "@ SOA n. h. 1 2 3 4 5\n@ NS n.\n"),
    ]);
    let other = folder(&[("secret", "x"), ("folder/secret", "y")]);
    symlink(other.path().join("secret"), site.path().join("www/out")).unwrap();
    symlink(other.path().join("folder"), site.path().join("www/outer")).unwrap();
    symlink("/nowhere", site.path().join("www/nowhere")).unwrap();
    symlink("../www", site.path().join("www/again")).unwrap();
    symlink("a", site.path().join("www/inside")).unwrap();
    symlink(
        other.path().join("secret"),
        site.path().join("zones/u.zone"),
    )
    .unwrap();
    std::process::Command::new("mkfifo")
        .arg(site.path().join("www/pipe"))
        .status()
        .unwrap();
    let problems = pack_dir(site.path(), &options()).err().unwrap().to_string();
    let mut lines: Vec<_> = problems.lines().collect();
    lines.sort_unstable();
    for (line, wanted) in lines.iter().zip([
        "www/again: cannot be read: ",
        "www/nowhere: cannot be read: ",
        "www/out: is a symbolic link out of the site",
        "www/outer: is a symbolic link out of the site",
        "www/pipe: is neither a file nor a folder",
        "zones/u.zone: is outside of the site: ",
    ]) {
        assert!(line.starts_with(wanted), "{problems}");
    }

    for (files, wanted) in [
        (
            &[("x", "")][..],
            "holds neither zones/*.zone nor files below www/",
        ),
        (
            &[("www/empty.d/.x", "")],
            "holds neither zones/*.zone nor files below www/",
        ),
    ] {
        let errors = errors(files);
        assert!(errors.ends_with(wanted), "{errors}");
    }
    let missing = pack_dir(&site.path().join("missing"), &options())
        .err()
        .unwrap();
    assert!(
        missing
            .to_string()
            .ends_with("missing: cannot be read: No such file or directory (os error 2)")
    );
    let file = pack_dir(&site.path().join("www/a"), &options())
        .err()
        .unwrap();
    assert!(file.to_string().ends_with("is not a folder"));
}

#[test]
fn a_file_that_changes_is_an_error() {
    for content in ["longer than before", "changed", ""] {
        let site = folder(&[("www/a", "content")]);
        let packed = pack_dir(site.path(), &options()).unwrap();
        std::fs::write(site.path().join("www/a"), content).unwrap();
        let error = packed.to_vec().unwrap_err().to_string();
        assert_eq!(error, "www/a: has changed while it was packed");
    }
}

#[test]
fn the_same_folder_gives_the_same_pack() {
    let one = packed(&common::sample());
    let mut files = common::sample();
    files.reverse();
    assert!(one == packed(&files));
    let site = folder(&files);
    for threads in [1, 7] {
        let options = mayfly_pack::Options {
            threads,
            ..options()
        };
        assert!(one == pack_dir(site.path(), &options).unwrap().to_vec().unwrap());
    }
    let out = site.path().join("site.mfs");
    pack_dir(site.path(), &options())
        .unwrap()
        .save(&out)
        .unwrap();
    assert!(one == std::fs::read(out).unwrap());
}
