//! Certification requests as OpenSSL makes them.

use std::process::Command;

use keywright_proto::{
    PublicKey,
    csr::{self, CsrError},
    pem::{Label, from_pem, to_pem},
    read_csr,
};

fn openssl(arguments: &[&str]) -> Vec<u8> {
    let out = Command::new("openssl").args(arguments).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// A request of openssl, which checks its signature itself.
fn request(key: &[&str]) -> String {
    let head = ["req", "-new", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=a Lock", "-verify"];
    String::from_utf8(openssl(&[&head[..], key].concat())).unwrap()
}

const P256: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

/// The DER of a request, changed, as PEM again.
fn changed(request: &str, change: impl Fn(&mut Vec<u8>)) -> String {
    let label = |from: &str, to: &str, text: &str| text.replace(from, to);
    let as_certificate = label("CERTIFICATE REQUEST", "CERTIFICATE", request);
    let mut der = from_pem(Label::Certificate, &as_certificate).unwrap().remove(0);
    change(&mut der);
    label("CERTIFICATE", "CERTIFICATE REQUEST", &to_pem(Label::Certificate, [der]).unwrap())
}

#[test]
fn request_made_by_openssl_gives_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("csr.pem");
    for more in [&[][..], &["-addext", "subjectAltName=DNS:lock.example"]] {
        let text = request(&[&P256, more].concat());
        std::fs::write(&path, &text).unwrap();
        let path = path.to_str().unwrap();
        let spki = openssl(&["req", "-in", path, "-noout", "-pubkey"]);
        let spki = String::from_utf8(spki).unwrap().replace("PUBLIC KEY", "CERTIFICATE");
        let spki = from_pem(Label::Certificate, &spki).unwrap().remove(0);
        assert_eq!(read_csr(&text), Ok(PublicKey::from_spki_der(&spki).unwrap()));
        assert!(
            read_csr(&text.replace("BEGIN ", "BEGIN NEW ").replace("END ", "END NEW ")).is_ok()
        );
    }
}

#[test]
fn openssl_verifies_the_request_of_a_lock() {
    let key = crate::common::Key::new(40);
    let text = csr::to_pem(&key.sign(csr::request(&key.public()).unwrap())).unwrap();
    assert_eq!(read_csr(&text), Ok(key.public()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("csr.pem");
    std::fs::write(&path, &text).unwrap();
    let out = Command::new("openssl")
        .args(["req", "-in", path.to_str().unwrap(), "-verify", "-noout"])
        .output()
        .unwrap();
    // Its exit status is 0 either way.
    assert!(String::from_utf8_lossy(&out.stderr).contains("verify OK"), "{out:?}");
}

#[test]
fn bad_request_is_refused_with_its_reason() {
    let good = request(&P256);
    for (what, text, error) in [
        ("nothing", String::new(), CsrError::NotACsr),
        ("text", "hello".into(), CsrError::NotACsr),
        ("another label", good.replace(" REQUEST", ""), CsrError::NotACsr),
        ("cut", changed(&good, |der| der.truncate(100)), CsrError::NotACsr),
        ("1 MB", format!("{good}{}", " ".repeat(1 << 20)), CsrError::TooLarge),
        ("RSA-1024", request(&["-newkey", "rsa:1024"]), CsrError::UnsupportedKey),
        (
            "P-384",
            request(&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"]),
            CsrError::UnsupportedKey,
        ),
        ("SHA-512", request(&[&P256[..], &["-sha512"]].concat()), CsrError::BadSignature),
        (
            "a changed signature",
            changed(&good, |der| *der.last_mut().unwrap() ^= 1),
            CsrError::BadSignature,
        ),
        (
            "a changed subject",
            changed(&good, |der| {
                let at = der.windows(6).position(|bytes| bytes == b"a Lock").unwrap();
                der[at] = b'b';
            }),
            CsrError::BadSignature,
        ),
    ] {
        assert_eq!(read_csr(&text), Err(error), "{what}");
    }
}
