//! The little of DER (X.690) that private keys need beyond what the crypto library reads: an RSA key
//! taken out of PKCS#8 or put together from the numbers of a JWK, in the form of RFC 8017 §A.1.2.

use zeroize::Zeroizing;

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// `RSAPrivateKey` with version 0 and these numbers, big-endian: modulus, public exponent,
/// private exponent, both primes, both exponents, coefficient.
#[must_use]
pub(super) fn rsa_private_key(numbers: &[Zeroizing<Vec<u8>>]) -> Zeroizing<Vec<u8>> {
    let mut content = integer(&[]);
    for number in numbers {
        content.extend_from_slice(&integer(number));
    }
    element(SEQUENCE, &content)
}

/// The key inside of a `PrivateKeyInfo` (RFC 5208 §5): version, algorithm, and the key as an octet
/// string.
#[must_use]
pub(super) fn inside_pkcs8(der: &[u8]) -> Option<&[u8]> {
    let (content, _) = take(der, SEQUENCE)?;
    let (_version, rest) = take(content, INTEGER)?;
    let (_algorithm, rest) = take(rest, SEQUENCE)?;
    take(rest, OCTET_STRING).map(|(key, _)| key)
}

/// A number that is not negative: no leading zeros but the one before a set sign bit.
fn integer(number: &[u8]) -> Zeroizing<Vec<u8>> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let digits = &number[zeros..];
    let mut content = Zeroizing::new(Vec::with_capacity(digits.len() + 1));
    if digits.first().is_none_or(|first| *first >= 0x80) {
        content.push(0);
    }
    content.extend_from_slice(digits);
    element(INTEGER, &content)
}

fn element(tag: u8, content: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(content.len() + 10));
    out.push(tag);
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    match significant {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        long => {
            // At most eight bytes of length.
            out.push(0x80 | u8::try_from(long.len()).unwrap_or_default());
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}

/// The content of the element with this tag at the front, and what follows it.
fn take(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    if first != tag {
        return None;
    }
    if length < 0x80 {
        return rest.split_at_checked(usize::from(length));
    }
    let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
    let length = digits
        .iter()
        .try_fold(0_usize, |sum, digit| sum.checked_mul(256)?.checked_add(usize::from(*digit)))?;
    rest.split_at_checked(length)
}

/// The numbers of a sequence of integers.
#[cfg(test)]
pub(super) fn integers(der: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut rest, _) = take(der, SEQUENCE)?;
    let mut numbers = Vec::new();
    while !rest.is_empty() {
        let (number, after) = take(rest, INTEGER)?;
        numbers.push(number);
        rest = after;
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_signs_are_written_as_der_has_them() {
        assert_eq!(*integer(&[]), [2, 1, 0]);
        assert_eq!(*integer(&[0, 0, 5]), [2, 1, 5]);
        assert_eq!(*integer(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(element(4, &[0; 0x7f])[..2], [4, 0x7f]);
        assert_eq!(element(4, &[0; 0x80])[..3], [4, 0x81, 0x80]);
        assert_eq!(element(4, &[0; 0x1234])[..4], [4, 0x82, 0x12, 0x34]);
    }

    #[test]
    fn what_is_cut_short_is_none() {
        let whole = element(SEQUENCE, &[INTEGER, 1, 0, SEQUENCE, 0, OCTET_STRING, 2, 7, 8]);
        assert_eq!(inside_pkcs8(&whole), Some(&[7, 8][..]));
        for length in 0..whole.len() {
            assert_eq!(inside_pkcs8(&whole[..length]), None, "{length}");
        }
        assert_eq!(take(&[4, 0x89, 255, 255, 255, 255, 255, 255, 255, 255, 255], 4), None);
    }
}
