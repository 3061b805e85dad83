//! Hosts that a prompt writes without a scheme.

use authz_base::host::is_host;

/// Ends of host names that are not ends of file names, names of members in programs, or English words: there `notes.md`,
/// `order.id` and `safari.app` may be meant.
const ENDS: &[&str] = &[
    "ad", "ae", "af", "ag", "al", "ao", "ar", "at", "au", "aw", "ax", "az", "ba", "bb", "bd", "be",
    "bf", "bg", "bh", "bi", "biz", "bj", "bm", "bn", "bo", "br", "bt", "bw", "by", "ca", "cd",
    "cf", "cg", "ch", "ci", "ck", "cl", "cloud", "cm", "cn", "co", "com", "coop", "cr", "cu", "cv",
    "cy", "cz", "de", "dev", "dj", "dk", "dm", "dz", "ec", "edu", "ee", "eg", "er", "et", "eu",
    "example", "fi", "fj", "fo", "fr", "gd", "ge", "gh", "gi", "gl", "gm", "gn", "gov", "gp", "gr",
    "gt", "gy", "hk", "hn", "hr", "ht", "hu", "ie", "il", "im", "info", "int", "internal", "io",
    "iq", "ir", "it", "je", "jm", "jo", "jp", "ke", "kg", "kh", "ki", "kr", "kw", "ky", "kz", "lb",
    "li", "lk", "lr", "ls", "lt", "lu", "lv", "ly", "mc", "me", "mg", "mil", "mn", "mo", "mp",
    "mr", "mt", "mu", "museum", "mv", "mw", "mx", "my", "mz", "na", "nc", "ne", "net", "nf", "ng",
    "ni", "nl", "no", "np", "nr", "nu", "nz", "om", "online", "org", "pa", "pe", "ph", "pk", "pr",
    "pt", "pw", "qa", "ro", "ru", "rw", "sa", "sb", "sd", "se", "sg", "shop", "si", "sk", "sl",
    "sm", "sn", "sr", "su", "sx", "sy", "sz", "tc", "td", "tg", "th", "tj", "tl", "tm", "tn", "tr",
    "tt", "tv", "tw", "tz", "ua", "ug", "uk", "us", "uy", "uz", "va", "vc", "ve", "vn", "vu", "wf",
    "ws", "xyz", "ye", "yt", "za", "zm", "zw",
];

/// Whether a word without a scheme is a host, such as `acme.example`, and nothing else that people write with dots.
pub(super) fn is_plain_host(text: &str) -> bool {
    let Some((rest, end)) = text.rsplit_once('.') else { return false };
    // "The mail.It is": a capital letter after a dot begins a sentence.
    let is_small = end.bytes().all(|byte| byte.is_ascii_lowercase());
    is_small && rest.len() > 1 && ENDS.contains(&end) && is_host(text)
}

/// Whether a word could be a host if its end were known.
pub(super) fn is_like_host(text: &str) -> bool {
    let Some((rest, end)) = text.rsplit_once('.') else { return false };
    let has_letter = |text: &str| text.bytes().any(|byte| byte.is_ascii_alphabetic());
    end.len() > 1 && rest.len() > 1 && has_letter(end) && has_letter(rest) && is_host(text)
}

/// The same host with `www.`, or without it.
pub(super) fn twin(host: &str) -> String {
    host.strip_prefix("www.").map_or_else(|| format!("www.{host}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_sentences_are_no_hosts() {
        for text in ["acme.example", "docs.acme.co.uk", "ravn-law.de", "acme.com", "x7.io"] {
            assert!(is_plain_host(text), "{text}");
        }
        for text in [
            "readme.md",
            "main.rs",
            "app.py",
            "run.sh",
            "a.zip",
            "logo.ai",
            "order.id",
            "Node.js",
            "mail.It",
            "ASP.NET",
            "i.e",
            "e.g",
            "u.a",
            "3.5",
            "1.2.3.4",
            "a.de",
            "acme",
            "",
            ".de",
            "acme.example.",
            "-acme.de",
            "index.html",
            "q3.csv",
            "config.local",
        ] {
            assert!(!is_plain_host(text), "{text}");
        }
    }
}
