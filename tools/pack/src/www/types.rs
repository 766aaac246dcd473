//! Media types of files.

use std::path::Path;

use super::super::config::Checked;

/// Media types of IANA's registry for extensions that `mime_guess` lacks, or for which it has an older or another type.
const TYPES: &[(&str, &str)] = &[
    ("3mf", "model/3mf"),
    ("adoc", "text/plain"),
    ("apk", "application/vnd.android.package-archive"),
    ("appinstaller", "application/appinstaller"),
    ("arrow", "application/vnd.apache.arrow.file"),
    ("arrows", "application/vnd.apache.arrow.stream"),
    ("atom", "application/atom+xml"),
    ("avif", "image/avif"),
    ("bmp", "image/bmp"),
    ("cbor", "application/cbor"),
    ("cbr", "application/vnd.comicbook-rar"),
    ("cbz", "application/vnd.comicbook+zip"),
    ("cer", "application/pkix-cert"),
    ("cjs", "text/javascript"),
    ("csv", "text/csv"),
    ("dcm", "application/dicom"),
    ("deb", "application/vnd.debian.binary-package"),
    ("emf", "image/emf"),
    ("eot", "application/vnd.ms-fontobject"),
    ("epub", "application/epub+zip"),
    ("exr", "image/aces"),
    ("fits", "image/fits"),
    ("flac", "audio/flac"),
    ("geojson", "application/geo+json"),
    ("gff3", "text/gff3"),
    ("glb", "model/gltf-binary"),
    ("gltf", "model/gltf+json"),
    ("gpkg", "application/geopackage+sqlite3"),
    ("gpx", "application/gpx+xml"),
    ("gz", "application/gzip"),
    ("heic", "image/heic"),
    ("heif", "image/heif"),
    ("hif", "image/heif"),
    ("ico", "image/vnd.microsoft.icon"),
    ("ics", "text/calendar"),
    ("jls", "image/jls"),
    ("jp2", "image/jp2"),
    ("jrd", "application/jrd+json"),
    ("js", "text/javascript"),
    ("json", "application/json"),
    ("jsonl", "application/jsonl"),
    ("jsonld", "application/ld+json"),
    ("jxl", "image/jxl"),
    ("jxs", "image/jxs"),
    ("kml", "application/vnd.google-earth.kml+xml"),
    ("kmz", "application/vnd.google-earth.kmz"),
    ("ktx2", "image/ktx2"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("m4s", "video/iso.segment"),
    ("map", "application/json"),
    ("markdown", "text/markdown"),
    ("md", "text/markdown"),
    ("mjs", "text/javascript"),
    ("mka", "audio/matroska"),
    ("mkv", "video/matroska"),
    ("mml", "application/mathml+xml"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpd", "application/dash+xml"),
    ("mtl", "model/mtl"),
    ("ndjson", "application/x-ndjson"),
    ("obj", "model/obj"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("opus", "audio/ogg"),
    ("otf", "font/otf"),
    ("p12", "application/pkcs12"),
    ("pdf", "application/pdf"),
    ("pem", "application/pem-certificate-chain"),
    ("pfx", "application/pkcs12"),
    ("psd", "image/vnd.adobe.photoshop"),
    ("rpm", "application/x-rpm"),
    ("rss", "application/rss+xml"),
    ("rtf", "application/rtf"),
    ("sarif", "application/sarif+json"),
    ("sql", "application/sql"),
    ("step", "model/step"),
    ("stl", "model/stl"),
    ("stp", "model/step"),
    ("svg", "image/svg+xml"),
    ("svgz", "image/svg+xml"),
    ("swf", "application/vnd.adobe.flash.movie"),
    ("toml", "application/toml"),
    ("ts", "video/mp2t"),
    ("ttc", "font/collection"),
    ("ttf", "font/ttf"),
    ("ttml", "application/ttml+xml"),
    ("usda", "model/vnd.usda"),
    ("usdz", "model/vnd.usdz+zip"),
    ("vcf", "text/vcard"),
    ("vtt", "text/vtt"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("weba", "audio/webm"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("wgsl", "text/wgsl"),
    ("wmf", "image/wmf"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xhtml", "application/xhtml+xml"),
    ("xml", "text/xml"),
    ("xsl", "application/xslt+xml"),
    ("xslt", "application/xslt+xml"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zip", "application/zip"),
    ("zone", "text/dns"),
    ("zst", "application/zstd"),
];

/// The extension of a file in lower case.
pub(super) fn extension(file: &Path) -> Option<String> {
    let extension = file.extension()?.to_str()?;
    Some(extension.to_lowercase())
}

/// The media type that the site sets for a path, or else that of the extension.
pub(super) fn media_type(path: &str, config: &Checked) -> String {
    let extension = extension(Path::new(path));
    let extension = extension.as_deref();
    if let Some(own) = config.media_type(path, extension) {
        return own.to_owned();
    }
    let known = TYPES.iter().find(|(known, _)| Some(*known) == extension);
    known.map_or_else(
        || {
            let guess = extension.map(mime_guess::from_ext);
            let guess = guess.and_then(|guess| guess.first_raw());
            guess.unwrap_or("application/octet-stream").to_owned()
        },
        |(_, known)| (*known).to_owned(),
    )
}

/// Whether a valid UTF-8 text may be declared as UTF-8. It may not if it switches character sets by escapes
/// (ISO-2022-JP and its relatives are valid UTF-8), or if a page names another character set where browsers look (in
/// the first 1,024 bytes).
pub(super) fn is_utf8(content: &[u8], media_type: &str) -> bool {
    const ESCAPE: u8 = 0x1b;
    let head = content.get(..1024).unwrap_or(content);
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let named = match media_type {
        "text/html" => after(&head, "charset="),
        "text/xml" => after(&head, "encoding="),
        "text/css" => after(&head, "@charset "),
        _ => None,
    };
    std::str::from_utf8(content).is_ok()
        && !content.contains(&ESCAPE)
        && named.is_none_or(|named| ["utf-8", "utf8", "us-ascii", "ascii"].contains(&named))
}

/// The name after a mark, in quotes or not.
fn after<'t>(text: &'t str, mark: &str) -> Option<&'t str> {
    let at = text.find(mark)? + mark.len();
    let rest = text[at..].trim_start_matches([' ', '"', '\'']);
    let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && !"-_:.".contains(letter));
    let name = &rest[..end.unwrap_or(rest.len())];
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn character_sets() {
        for (content, media_type, wanted) in [
            (&b"<p>a"[..], "text/html", true),
            (b"", "text/plain", true),
            ("<p>ü".as_bytes(), "text/html", true),
            (b"<p>\xfc", "text/html", false),
            (b"<p>\x1b$B$3\x1b(B", "text/html", false),
            (b"<meta charset=\"UTF-8\">", "text/html", true),
            (b"<meta charset=iso-2022-jp>", "text/html", false),
            (
                b"<meta http-equiv=Content-Type content='text/html; charset=Shift_JIS'>",
                "text/html",
                false,
            ),
            (
                b"<?xml version='1.0' encoding='ISO-8859-1'?>",
                "text/xml",
                false,
            ),
            (b"@charset \"iso-8859-15\";", "text/css", false),
            (b"charset=iso-8859-1", "text/plain", true),
        ] {
            assert_eq!(is_utf8(content, media_type), wanted, "{content:?}");
        }
    }
}
