#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use unicode_general_category::{GeneralCategory, get_general_category};

use super::*;

#[test]
fn ids_that_are_in_their_one_spelling() {
    for id in [
        "7",
        "-7",
        "plan",
        "/plan",
        "Plan",
        "vip/1",
        "a b",
        ".env",
        "a/.git/b",
        "100%",
        "50%off",
        "a%",
        "%zz",
        "a:b",
        "C:x",
        "proj:12",
        "pl\u{e4}n",
        "\u{65e5}\u{672c}",
        "a@b.example",
        "x=1;y=2",
        "a+b",
        "#1",
        "File:x.png",
        "https://corp.example/a",
        "https://corp.example/",
        "https://corp.example:8443/a?q=a%2Fb",
        "https://corp.example/it's?q=it%27s",
        "notes://plan/a?q=it's",
        "file:///etc/hosts",
        "notes://plan/a%20b",
        "notes://",
        "db://user@host:5432/x",
        "https://[::1]/a",
        "https://127.0.0.1/a",
        "x://a/%C3%A9",
    ] {
        assert_eq!(Ok(()), check_id(id), "{id:?}");
    }
    assert_eq!(Ok(()), check_id(&"a".repeat(MAX_ID)));
}

#[test]
fn every_second_spelling_of_an_id_is_refused() {
    for (id, why) in [
        ("", LENGTH),
        ("/", EMPTY),
        ("a/", EMPTY),
        ("//a", EMPTY),
        ("a//b", EMPTY),
        (".", DOTS),
        ("./a", DOTS),
        ("a/../b", DOTS),
        ("a\\b", BACKSLASH),
        ("a%2Fb", ENCODED),
        ("a%2fb", ENCODED),
        ("%61", ENCODED),
        ("a%20b", ENCODED),
        ("a%c3%a4", ENCODED),
        ("a\u{0}", INVISIBLE),
        ("a\n", INVISIBLE),
        ("a\u{85}", ENDS),
        ("a\u{200b}", INVISIBLE),
        ("a\u{ad}b", INVISIBLE),
        ("a\u{202e}b", INVISIBLE),
        ("a\u{feff}", INVISIBLE),
        ("a\u{3164}", INVISIBLE),
        ("\u{2764}\u{fe0f}", INVISIBLE),
        ("pla\u{308}n", NOT_NFC),
        ("\u{212b}", NOT_NFC),
        ("a ", ENDS),
        (" a", ENDS),
        ("a /b", ENDS),
        ("a/ b", ENDS),
        ("a\u{a0}", ENDS),
        ("a.", ENDS),
        ("a./b", ENDS),
        ("...", ENDS),
        ("HTTPS://corp.example/a", SCHEME),
        ("https://Corp.example/a", HOST),
        ("https://corp.example./a", HOST),
        ("https:///a", HOST),
        ("https://0x7f000001/a", HOST),
        ("https://127.1/a", HOST),
        ("https://[::01]/a", HOST),
        ("https://[::ffff:127.0.0.1]/a", HOST),
        ("notes://../a", HOST),
        ("https://corp.example@evil.example/a", USER),
        ("db://a@b@c/x", USER),
        ("https://corp.example:443/a", PORT),
        ("http://corp.example:80/a", PORT),
        ("https://corp.example:/a", PORT),
        ("https://corp.example:08443/a", PORT),
        ("https://corp.example", NO_PATH),
        ("https://corp.example?x", NO_PATH),
        ("https://corp.example/a/", EMPTY),
        ("https://corp.example//a", EMPTY),
        ("https://corp.example/a/../b", DOTS),
        ("https://corp.example/a/..;x/b", DOTS),
        ("https://corp.example/a/%2E%2E/b", SEPARATOR),
        ("https://corp.example/a%2Fb", SEPARATOR),
        ("https://corp.example/a%5Cb", SEPARATOR),
        ("https://corp.example/a%252Fb", SEPARATOR),
        ("https://corp.example/a%00", SEPARATOR),
        ("https://corp.example/%61", ESCAPE),
        ("https://corp.example/a?q=%61", ESCAPE),
        ("https://corp.example/a?q='", QUOTE),
        ("ftp://corp.example/a?q='", QUOTE),
        ("wss://corp.example/a?'=1", QUOTE),
        ("file:///a?q='", QUOTE),
        ("https://corp.example/a?q=%2E", ESCAPE),
        ("x://a/%c3%a9", ESCAPE),
        ("x://a/e%CC%81", NOT_NFC),
        ("x://a/%E2%80%8B", INVISIBLE),
        ("x://a/%C3", MALFORMED),
        ("x://a/%4", MALFORMED),
        ("x://a/b%20", ENDS),
        ("x://a/b.", ENDS),
        ("x://a/\u{e9}", CHARACTER),
        ("x://a/b c", CHARACTER),
        ("x://a/b?", DANGLING),
        ("x://a/b#", FRAGMENT),
        ("https://corp.example/a#c", FRAGMENT),
        ("https://corp.example/a%3Ab", ESCAPE),
        ("https://corp.example/a%40b", ESCAPE),
        ("https://corp.example/a%2Bb", ESCAPE),
        ("ftp://h.example:21/a", PORT),
        ("ftp://0x7f.1/a", HOST),
        ("redis://h:6379/0", PORT),
        ("db://@h/a", USER),
        ("db://:@h/a", USER),
        ("db://u:@h/a", USER),
        ("a/..;/b", DOTS),
        ("a/.;x/b", DOTS),
        ("https:/corp.example/a", SLASHES),
        ("HTTPS:corp.example", SLASHES),
        ("file:/etc/hosts", SLASHES),
        ("file://localhost/etc/hosts", HOST),
        ("file:////etc/hosts", EMPTY),
    ] {
        assert_eq!(Err(why), check_id(id), "{id:?}");
    }
    assert_eq!(Err(LENGTH), check_id(&"a".repeat(MAX_ID + 1)));
    assert_eq!(Err(NO_SCHEME), check_uri("x/../secrets"));
    assert_eq!(Err(ESCAPE), check_uri("notes:%73ecrets"));
    assert_eq!(Err(DOTS), check_uri("notes:x/../secrets"));
    assert_eq!(Err(SCHEME), check_uri("NOTES:secrets"));
    assert_eq!(Err(SLASHES), check_uri("file:etc/hosts"));
    assert_eq!(Err(SLASHES), check_uri("https:corp.example"));
    assert_eq!(Ok(()), check_uri("urn:isbn:0451450523"));
}

#[test]
fn a_prefix_covers_typed_parts() {
    let site = "https://api.corp.example";
    for (prefix, text, is_covered) in [
        (site, "https://api.corp.example", true),
        (site, "https://api.corp.example/", true),
        (site, "https://api.corp.example/x?d=1", true),
        (site, "https://api.corp.example?d=1", true),
        (site, "https://api.corp.example.evil.example/", false),
        (site, "https://api.corp.example@evil.example/", false),
        (site, "https://api.corp.example:8443/", false),
        (site, "https://api.corp.example:443/", false),
        (site, "http://api.corp.example/", false),
        (site, "HTTPS://api.corp.example/", false),
        (site, "https://api.corp.example/a/../b", false),
        (site, "https://api.corp.example/a/%2e%2e/b", false),
        (site, "https://api.corp.example\\@evil.example/", false),
        ("https://h.example/a", "https://h.example/a", true),
        ("https://h.example/a", "https://h.example/a/b", true),
        ("https://h.example/a", "https://h.example/a?b", true),
        ("https://h.example/a", "https://h.example/ab", false),
        ("https://h.example/a/", "https://h.example/a/b", true),
        ("https://h.example/a/", "https://h.example/a", false),
        ("https://h.example/", "https://h.example/a", true),
        ("file:///", "file:///etc/hosts", true),
        ("https://", "https://evil.example/", false),
        ("/a/b", "/a/b", true),
        ("/a/b", "/a/b/", true),
        ("/a/b", "/a/b/c", true),
        ("/a/b", "/a/bc", false),
        ("/a/b", "a/b/c", false),
        ("/a/b", "/a/b/../../etc/shadow", false),
        ("/a/b/", "/a/b/c", true),
        ("/a/b/", "/a/b", false),
        ("/a/b/", "/a/bc", false),
        ("/", "/etc", true),
        ("/", "etc", false),
        ("acme", "acme", true),
        ("acme", "acme/1", true),
        ("acme", "acme@evil.example", false),
        ("acme", "acmex/1", false),
        ("acme", "acme\\1", false),
        ("https", "https://evil.example/", false),
        ("https:/", "https://evil.example/", false),
    ] {
        assert_eq!(is_covered, covers(prefix, text), "{prefix:?} {text:?}");
    }
    for prefix in
        ["acme", "acme/", "/", "/a/b", site, "https://h.example/a/", "Reports (2024)/", "file:///"]
    {
        assert_eq!(Ok(()), check_prefix(prefix), "{prefix:?}");
    }
    for (prefix, why) in [
        ("", LENGTH),
        ("INV-", BORDER),
        ("acme@", BORDER),
        ("https:", SLASHES),
        ("Re: ", ENDS),
        ("a//", EMPTY),
        ("a/../", DOTS),
        ("https://", HOST),
        ("notes://", HOST),
        ("https://h.example/a-", BORDER),
        ("https://h.example/a?b", QUERY),
        ("https://h.example:443", PORT),
    ] {
        assert_eq!(Err(why), check_prefix(prefix), "{prefix:?}");
    }
}

#[test]
fn a_prefix_within_a_prefix() {
    for (wide, narrow, is_within) in [
        ("/a", "/a/", true),
        ("/a", "/a/b", true),
        ("/a/", "/a", false),
        ("/a/", "/a/", true),
        ("/a", "/ab", false),
        ("https://h.example", "https://h.example/", true),
        ("https://h.example/", "https://h.example", false),
        ("https://h.example", "https://h.example.evil.example", false),
    ] {
        assert_eq!(is_within, covers_spelled(wide, narrow), "{wide:?} {narrow:?}");
    }
}

#[test]
fn all_cases_of_an_id_have_one_key() {
    for (id, key) in [
        ("plan3", "plan3"),
        ("Plan3", "plan3"),
        ("STRASSE", "strasse"),
        ("stra\u{df}e", "strasse"),
        ("STRA\u{1e9e}E", "strasse"),
        ("\u{3a3}\u{39f}\u{3a3}", "\u{3c3}\u{3bf}\u{3c3}"),
        ("\u{3c3}\u{3bf}\u{3c2}", "\u{3c3}\u{3bf}\u{3c3}"),
        ("\u{212a}", "k"),
        ("\u{130}", "i\u{307}"),
        ("\u{131}", "\u{131}"),
        ("\u{c4}", "\u{e4}"),
    ] {
        assert_eq!(key, fold(id), "{id:?}");
    }
    assert!(matches!(fold("plan3"), Cow::Borrowed(_)));
}

/// Every character, by its category: a list of ranges ages, and this says where.
#[test]
fn characters_that_nobody_sees() {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator};
    for c in '\0'..=char::MAX {
        let is_format = matches!(
            get_general_category(c),
            Control | Format | LineSeparator | ParagraphSeparator
        );
        assert!(!is_format || is_invisible(c), "{:x}", u32::from(c));
    }
}

/// The obvious way to look at a plain id.
fn is_spelled_slowly(id: &str) -> bool {
    let letters: Vec<char> = id.chars().collect();
    let is_escape = |window: &[char]| {
        window.first() == Some(&'%') && window.iter().skip(1).all(char::is_ascii_hexdigit)
    };
    let composed: String = id.nfc().collect();
    let body = if id.starts_with('/') { id.chars().skip(1).collect() } else { id.to_owned() };
    let segments: Vec<&str> = body.split('/').collect();
    (1..=1_024).contains(&id.len())
        && composed == id
        && !letters.contains(&'\\')
        && !letters.iter().any(|c| is_invisible(*c))
        && !letters.windows(3).any(is_escape)
        && segments.iter().all(|segment| {
            segment.trim() == *segment
                && !segment.is_empty()
                && segment.trim_end_matches('.') == *segment
        })
}

/// Scheme, authority and segments of a text; none where it has no scheme.
fn parts(text: &str) -> (Option<(&str, &str)>, Vec<&str>) {
    let Some((scheme, rest)) = text.split_once("://") else {
        return (None, text.split('/').collect());
    };
    let rest = rest.split(['?', '#']).next().unwrap();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, "\0none"));
    let path = if path == "\0none" { Vec::new() } else { path.split('/').collect() };
    (Some((scheme, authority)), path)
}

/// The obvious way to compare a prefix with a text in its one spelling, part by part.
fn covers_slowly(prefix: &str, text: &str) -> bool {
    let ((origin, mut wide), (other, narrow)) = (parts(prefix), parts(text));
    let is_folder = prefix.ends_with('/');
    if is_folder {
        wide.pop();
    }
    let has_rest = narrow.len() > wide.len();
    origin == other && narrow.starts_with(&wide) && (has_rest || !is_folder)
}

proptest! {
    #[test]
    fn a_plain_id_is_what_the_obvious_reader_says(
        id in "(a|B|7|/|\\.| |%|2|f|\\\\|\u{e9}|e\u{301}|\u{200b}|\u{a0}|:|-){0,8}",
    ) {
        prop_assert_eq!(is_spelled_slowly(&id), check_id(&id).is_ok(), "{:?}", id);
    }

    #[test]
    fn a_prefix_covers_what_comparing_part_by_part_says(
        prefix in "(https://)?(a|b\\.example|/|ab|:1|@|\\.|-){1,5}",
        text in "(https://)?(a|b\\.example|/|ab|:1|@|\\.|-|\\?x|#y|%20){1,6}",
    ) {
        prop_assume!(check_prefix(&prefix).is_ok());
        let is_spelled = check_id(&text).is_ok();
        if is_spelled {
            prop_assert_eq!(covers_slowly(&prefix, &text), covers(&prefix, &text), "{:?} {:?}", prefix, text);
        } else if covers(&prefix, &text) {
            // A text that is not an id may still lie under a prefix, if only its end is wrong.
            prop_assert!(covers_slowly(&prefix, &text), "{:?} {:?}", prefix, text);
        }
    }

    /// A prefix within a prefix covers no more.
    #[test]
    fn containment_is_transitive(
        wide in "/?(a|b|/){1,4}", narrow in "/?(a|b|/){1,5}", text in "/?(a|b|/){1,6}",
    ) {
        prop_assume!(check_prefix(&wide).is_ok() && check_prefix(&narrow).is_ok());
        if covers_spelled(&wide, &narrow) && covers(&narrow, &text) {
            prop_assert!(covers(&wide, &text), "{:?} {:?} {:?}", wide, narrow, text);
        }
    }

    #[test]
    fn folding_is_stable_and_blind_to_case(id in "\\PC{0,12}") {
        let id: String = id.nfc().collect();
        let key = fold(&id).into_owned();
        prop_assert_eq!(&key, &fold(&key));
        let capitals: String = id.to_uppercase().nfc().collect();
        if !id.contains('\u{131}') {
            prop_assert_eq!(&key, &fold(&capitals), "{:?}", id);
        }
    }
}
