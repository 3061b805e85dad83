//! Amounts of money in a prompt: a number with the sign, the code or the noun of its currency.

use super::{Reading, Word, bare, is_closed, plain};

/// Currencies of ISO 4217.
const CODES: &[&str] = &[
    "AED", "AFN", "ALL", "AMD", "ANG", "AOA", "ARS", "AUD", "AWG", "AZN", "BAM", "BBD", "BDT",
    "BGN", "BHD", "BIF", "BMD", "BND", "BOB", "BRL", "BSD", "BTN", "BWP", "BYN", "BZD", "CAD",
    "CDF", "CHF", "CLP", "CNY", "COP", "CRC", "CUP", "CVE", "CZK", "DJF", "DKK", "DOP", "DZD",
    "EGP", "ERN", "ETB", "EUR", "FJD", "FKP", "GBP", "GEL", "GHS", "GIP", "GMD", "GNF", "GTQ",
    "GYD", "HKD", "HNL", "HTG", "HUF", "IDR", "ILS", "INR", "IQD", "IRR", "ISK", "JMD", "JOD",
    "JPY", "KES", "KGS", "KHR", "KMF", "KPW", "KRW", "KWD", "KYD", "KZT", "LAK", "LBP", "LKR",
    "LRD", "LSL", "LYD", "MAD", "MDL", "MGA", "MKD", "MMK", "MNT", "MOP", "MRU", "MUR", "MVR",
    "MWK", "MXN", "MYR", "MZN", "NAD", "NGN", "NIO", "NOK", "NPR", "NZD", "OMR", "PAB", "PEN",
    "PGK", "PHP", "PKR", "PLN", "PYG", "QAR", "RON", "RSD", "RUB", "RWF", "SAR", "SBD", "SCR",
    "SDG", "SEK", "SGD", "SHP", "SLE", "SOS", "SRD", "SSP", "STN", "SVC", "SYP", "SZL", "THB",
    "TJS", "TMT", "TND", "TOP", "TRY", "TTD", "TWD", "TZS", "UAH", "UGX", "USD", "UYU", "UZS",
    "VES", "VND", "VUV", "WST", "XAF", "XCD", "XOF", "XPF", "YER", "ZAR", "ZMW",
];
/// Codes that are written in small letters, too: none of them is a word.
const SMALL_CODES: &[&str] = &["chf", "eur", "gbp", "usd"];
/// Codes that are words before a number: "ALL 5 files".
const WORDS: &[&str] = &["ALL", "TOP", "TRY"];
/// Currencies with three digits after the point, where `1,250` may be read in two ways.
const THREE_DIGITS: &[&str] = &["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"];
const SIGNS: &[(&str, &str)] = &[
    ("€", "EUR"),
    ("£", "GBP"),
    ("$", "USD"),
    ("US$", "USD"),
    ("C$", "CAD"),
    ("CA$", "CAD"),
    ("A$", "AUD"),
    ("AU$", "AUD"),
    ("NZ$", "NZD"),
    ("HK$", "HKD"),
    ("S$", "SGD"),
    ("R$", "BRL"),
    ("¥", "JPY"),
    ("CN¥", "CNY"),
    ("₹", "INR"),
    ("₩", "KRW"),
    ("₺", "TRY"),
    ("₴", "UAH"),
    ("₪", "ILS"),
    ("₫", "VND"),
    ("₦", "NGN"),
    ("₱", "PHP"),
    ("฿", "THB"),
    ("zł", "PLN"),
    ("Kč", "CZK"),
];
/// Nouns that several countries use for their currencies, such as `kroner`, are not here: they may be read in two ways.
const NOUNS: &[(&str, &str)] = &[
    ("euro", "EUR"),
    ("euros", "EUR"),
    ("dollar", "USD"),
    ("dollars", "USD"),
    ("pound", "GBP"),
    ("pounds", "GBP"),
    ("pfund", "GBP"),
    ("yen", "JPY"),
    ("yuan", "CNY"),
    ("renminbi", "CNY"),
    ("franken", "CHF"),
    ("kronor", "SEK"),
    ("zloty", "PLN"),
    ("zlotys", "PLN"),
    ("złoty", "PLN"),
    ("forint", "HUF"),
    ("reais", "BRL"),
    ("shekels", "ILS"),
];
/// Nouns of two words.
const PAIRS: &[(&str, &str, &str)] = &[
    ("us", "dollar", "USD"),
    ("american", "dollar", "USD"),
    ("canadian", "dollar", "CAD"),
    ("australian", "dollar", "AUD"),
    ("british", "pound", "GBP"),
    ("swiss", "franc", "CHF"),
    ("schweizer", "franken", "CHF"),
    ("swedish", "kronor", "SEK"),
    ("norwegian", "kroner", "NOK"),
    ("danish", "kroner", "DKK"),
    ("indian", "rupee", "INR"),
];
/// Words after a number that make it another one.
const MULTIPLIERS: &[&str] = &[
    "hundred",
    "thousand",
    "tausend",
    "tsd",
    "k",
    "grand",
    "million",
    "millions",
    "millionen",
    "mio",
    "mn",
    "m",
    "billion",
    "billions",
    "bn",
    "milliarde",
    "milliarden",
    "mrd",
    "lakh",
    "crore",
];
const CENTS: &[&str] = &["cent", "cents", "pence", "rappen"];

/// Digits of a number in a prompt or in a call.
const MOST_DIGITS: usize = 30;

const UNCLEAR: &str = "the amount may be read in two ways: write it as `1250.50 EUR`";
const SPELLED: &str = "write the amount in digits only";

/// An amount that begins with the first of the words after `before`; and how many words state it.
pub(super) fn amount(before: Option<&Word<'_>>, words: &[Word<'_>]) -> Option<(Reading, usize)> {
    let stated = joined(words).or_else(|| led(words)).or_else(|| followed(words))?;
    let taken = words.get(..stated.words).unwrap_or_default();
    let text = taken.iter().map(|word| bare(word.text)).collect::<Vec<_>>().join(" ");
    let reading = match stated.value(before, words) {
        Ok((currency, value)) => Reading {
            text,
            kind: Some("amount"),
            name: format!("{currency} {value}"),
            ..Reading::default()
        },
        Err(why) => Reading::unnamed(&text, why),
    };
    Some((reading, stated.words))
}

/// A number with its currency, or with two currencies that differ.
struct Stated<'a> {
    number: &'a str,
    currency: Option<&'static str>,
    /// The currency stands after the number, as a word of its own.
    is_followed: bool,
    words: usize,
}

impl Stated<'_> {
    /// The currency, and the number as a canonical decimal.
    fn value(
        &self,
        before: Option<&Word<'_>>,
        words: &[Word<'_>],
    ) -> Result<(&'static str, String), &'static str> {
        let last = self.words.checked_sub(1).and_then(|index| words.get(index));
        let is_last = last.is_none_or(is_closed);
        let mut after = words.iter().skip(self.words).filter(|_| !is_last);
        let next = after.next().map_or("", |word| bare(word.text));
        let then = after.next().map_or("", |word| bare(word.text));
        let later = after.next().map_or("", |word| bare(word.text));
        let is_cents = |number: &str, noun: &str| {
            number.bytes().all(|byte| byte.is_ascii_digit())
                && CENTS.contains(&plain(noun).as_str())
        };
        let is_and = matches!(plain(next).as_str(), "and" | "und");
        if MULTIPLIERS.contains(&plain(next).as_str())
            || is_cents(next, then)
            || is_and && is_cents(then, later)
        {
            return Err(SPELLED);
        }
        // `1 250 EUR`: one number, or two.
        let is_group = |text: &str| {
            let (head, tail) = text.split_at_checked(3).unwrap_or_default();
            head.bytes().all(|byte| byte.is_ascii_digit())
                && !head.is_empty()
                && !tail.starts_with(|c: char| c.is_alphanumeric())
        };
        let is_short = |text: &str| {
            (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        let ends_number = before.is_some_and(|word| !is_closed(word) && is_short(bare(word.text)));
        if is_group(self.number) && ends_number || is_short(self.number) && is_group(next) {
            return Err(UNCLEAR);
        }
        let currency = self.currency.ok_or(UNCLEAR)?;
        // `4711 EUR 500`: the currency of which number?
        if self.is_followed && next.starts_with(is_digit) {
            return Err(UNCLEAR);
        }
        // `$870 CAD`.
        let currency = match code(next).filter(|code| *code != currency) {
            None => currency,
            Some(code) if currency == "USD" && code.ends_with('D') => code,
            Some(_) => return Err(UNCLEAR),
        };
        Ok((currency, number(self.number, currency).ok_or(UNCLEAR)?))
    }
}

/// `€870`, `870€`, `EUR870`, `$870`.
fn joined<'a>(words: &[Word<'a>]) -> Option<Stated<'a>> {
    let text = bare(words.first()?.text);
    let (first, last) = (text.find(is_digit)?, text.rfind(is_digit)?);
    let (head, rest) = text.split_at_checked(first)?;
    let (number, tail) = rest.split_at_checked(last.checked_sub(first)?.checked_add(1)?)?;
    let currency = match (head.is_empty(), tail.is_empty()) {
        (true, true) => return None,
        (false, true) => Some(sign(head).or_else(|| code(head))?),
        (true, false) => Some(sign(tail).or_else(|| code(tail))?),
        (false, false) => {
            let (one, other) = (sign(head)?, sign(tail).or_else(|| code(tail))?);
            (one == other).then_some(one)
        }
    };
    // `EUR8-9` and `870ALL` are not amounts of money.
    number.chars().all(is_of_number).then_some(Stated {
        number,
        currency,
        is_followed: false,
        words: 1,
    })
}

/// `EUR 870`, `€ 870`.
fn led<'a>(words: &[Word<'a>]) -> Option<Stated<'a>> {
    let [first, second, ..] = words else { return None };
    let text = bare(first.text);
    let currency = sign(text).or_else(|| code(text).filter(|code| !WORDS.contains(code)))?;
    let number = bare(second.text);
    let is_number = number.starts_with(is_digit) && number.chars().all(is_of_number);
    (is_number && !is_closed(first)).then_some(Stated {
        number,
        currency: Some(currency),
        is_followed: false,
        words: 2,
    })
}

/// `870 EUR`, `870 €`, `870 euros`, `870 US dollars`.
fn followed<'a>(words: &[Word<'a>]) -> Option<Stated<'a>> {
    let [first, second, ..] = words else { return None };
    let number = bare(first.text);
    let is_number = number.starts_with(is_digit) && number.chars().all(is_of_number);
    if !is_number || is_closed(first) {
        return None;
    }
    let noun = bare(second.text);
    let of_noun = |text: &str| {
        let text = plain(text);
        NOUNS.iter().find(|(noun, _)| *noun == text).map(|(_, currency)| *currency)
    };
    if let Some(currency) = sign(noun).or_else(|| code(noun)).or_else(|| of_noun(noun)) {
        return Some(Stated { number, currency: Some(currency), is_followed: true, words: 2 });
    }
    let (country, noun) = (plain(noun), plain(bare(words.get(2)?.text)));
    let &(_, _, currency) = PAIRS.iter().find(|(one, other, _)| {
        *one == country && (noun == *other || noun.strip_suffix('s') == Some(other))
    })?;
    Some(Stated { number, currency: Some(currency), is_followed: true, words: 3 })
}

const fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

const fn is_of_number(c: char) -> bool {
    c.is_ascii_digit() || matches!(c, '.' | ',' | '\'' | '\u{2019}')
}

fn sign(text: &str) -> Option<&'static str> {
    SIGNS.iter().find(|(sign, _)| *sign == text).map(|(_, currency)| *currency)
}

fn code(text: &str) -> Option<&'static str> {
    let upper = text.to_ascii_uppercase();
    let is_written = text == upper || SMALL_CODES.contains(&text);
    CODES.iter().copied().find(|code| is_written && *code == upper)
}

/// A number of money as a canonical decimal; none where it may be read in two ways.
fn number(text: &str, currency: &str) -> Option<String> {
    let is_mark = |c: char| !c.is_ascii_digit();
    let Some(last) = text.rfind(is_mark) else { return decimal(text) };
    let mark = text.get(last..)?.chars().next()?;
    let (head, tail) = (text.get(..last)?, text.get(last.checked_add(mark.len_utf8())?..)?);
    let is_grouped = |head: &str, by: char| {
        let mut groups = head.split(by);
        groups.next().is_some_and(|first| (1..=3).contains(&first.len()) && !first.starts_with('0'))
            && groups.all(|group| group.len() == 3 && group.chars().all(is_digit))
    };
    let plain = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let first = head.chars().find(|c| is_mark(*c));
    match first {
        // Grouped in thousands: `1,250` and `1.250.000`.
        None | Some(_) if tail.len() == 3 && first.is_none_or(|first| first == mark) => {
            let is_thousands = is_grouped(text, mark) && !THREE_DIGITS.contains(&currency);
            is_thousands.then(|| decimal(&plain(text)))?
        }
        // With a fraction: `870.50`, `1.250,50` and `1,250.50`.
        first => {
            let most = if THREE_DIGITS.contains(&currency) { 3 } else { 2 };
            let is_fraction = matches!(mark, '.' | ',') && (1..=most).contains(&tail.len());
            let is_head = first.is_none_or(|first| first != mark && is_grouped(head, first));
            (is_fraction && is_head).then(|| decimal(&format!("{}.{tail}", plain(head))))?
        }
    }
}

/// A number without an exponent as a canonical decimal, without zeros around it. `None`: not a number, or negative.
fn decimal(text: &str) -> Option<String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.chars().all(is_digit);
    if !is_digits(whole) || !is_digits(fraction) || text.len() > MOST_DIGITS {
        return None;
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") })
}

/// The name by which the amount of a call counts as named.
///
/// Args: `number`: as the call has it, such as `870` or `870.50`; `scale`: 1, or 100 if the number is in hundredths, for
/// example in cents; `currency`: its code. Default: an amount in any currency. Returns none for a number that no prompt
/// names: a negative one, or one with an exponent.
#[must_use]
pub fn amount_name(number: &str, scale: u32, currency: Option<&str>) -> Option<String> {
    let value = scaled(number, scale)?;
    Some(match currency {
        Some(currency) => format!("amount:{} {value}", currency.to_ascii_uppercase()),
        None => format!("amount:{value}"),
    })
}

/// Divides by a power of ten.
fn scaled(number: &str, scale: u32) -> Option<String> {
    let value = decimal(number)?;
    let places = usize::try_from(scale.checked_ilog10()?).ok()?;
    if 10_u32.checked_pow(scale.ilog10()) != Some(scale) {
        return None;
    }
    let (whole, fraction) = value.split_once('.').unwrap_or((&value, ""));
    let filled = format!("{whole:0>width$}", width = places.checked_add(1)?);
    let (whole, more) = filled.split_at_checked(filled.len().checked_sub(places)?)?;
    decimal(&format!("{whole}.{more}{fraction}0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        for (text, currency, expected) in [
            ("870", "EUR", Some("870")),
            ("870.00", "EUR", Some("870")),
            ("870,5", "EUR", Some("870.5")),
            ("1,250.50", "USD", Some("1250.5")),
            ("1.250,50", "EUR", Some("1250.5")),
            ("1'250.50", "CHF", Some("1250.5")),
            ("1,250", "USD", Some("1250")),
            ("1.250", "EUR", Some("1250")),
            ("1.250.000", "EUR", Some("1250000")),
            ("0.05", "EUR", Some("0.05")),
            ("007", "EUR", Some("7")),
            ("1.250", "KWD", None),
            ("0.250", "EUR", None),
            ("12.50.00", "EUR", None),
            ("1,250,50", "EUR", None),
            ("1.2345", "EUR", None),
            ("1,,250", "EUR", None),
            ("12,34,567", "INR", None),
            ("1'25", "CHF", None),
        ] {
            assert_eq!(expected, number(text, currency).as_deref(), "{text} {currency}");
        }
    }

    #[test]
    fn an_amount_of_a_call_has_the_same_form() {
        for (number, scale, expected) in [
            ("870", 1, Some("amount:EUR 870")),
            ("870.00", 1, Some("amount:EUR 870")),
            ("87050", 100, Some("amount:EUR 870.5")),
            ("5", 100, Some("amount:EUR 0.05")),
            ("0", 100, Some("amount:EUR 0")),
            ("870.5", 100, Some("amount:EUR 8.705")),
            ("-870", 1, None),
            ("8.7e2", 1, None),
            ("870", 60, None),
            ("870", 0, None),
            ("", 1, None),
            (".5", 1, None),
        ] {
            assert_eq!(expected, amount_name(number, scale, Some("eur")).as_deref(), "{number}");
        }
        assert_eq!(Some("amount:870"), amount_name("870.0", 1, None).as_deref());
    }
}
