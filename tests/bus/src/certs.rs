//! Checks the daemon's certificates with openssl, and makes Locks' requests with it.

use std::{fs, path::Path, process::Command};

use tempfile::TempDir;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// Verifies a chain (leaf first) with a family's roots and CRLs, strictly and with every CRL.
///
/// Panics with openssl's message if it refuses the chain.
pub fn verify(chain: &str, roots: &str, crls: &str) {
    if let Err(refusal) = try_verify(chain, roots, crls) {
        panic!("openssl refuses the chain: {refusal}\n{chain}\nroots:\n{roots}\nCRLs:\n{crls}");
    }
}

/// Like [`verify`]; the error is openssl's message.
pub fn try_verify(chain: &str, roots: &str, crls: &str) -> Result<(), String> {
    let certificates = certificates(chain);
    let (leaf, above) = certificates.split_first().expect("a chain begins with its leaf");
    let dir = TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let (roots, crls, leaf) = (write("roots", roots), write("crls", crls), write("leaf", leaf));
    let mut verify = vec!["verify", "-x509_strict", "-crl_check_all", "-trusted", &roots];
    verify.extend(["-CRLfile", &crls]);
    let above_file = write("above", &above.concat());
    if !above.is_empty() {
        verify.extend(["-untrusted", &above_file]);
    }
    verify.push(&leaf);
    openssl(&verify).map(drop)
}

/// The certificates of a PEM text, one by one.
pub fn certificates(pem: &str) -> Vec<String> {
    pem.split(BEGIN).skip(1).map(|rest| format!("{BEGIN}{rest}")).collect()
}

/// A field as openssl prints it for the first certificate: `subject`, `issuer`, `ext`, `pubkey`…
pub fn show(pem: &str, options: &[&str]) -> String {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("certificate");
    fs::write(&path, pem).unwrap();
    let fixed = ["x509", "-noout", "-in", path.to_str().unwrap()];
    openssl(&[&fixed, options].concat()).unwrap()
}

/// The id of a certificate's key: the first 16 bytes of SHA-256 over its SubjectPublicKeyInfo.
pub fn key_id(pem: &str) -> String {
    let dir = TempDir::new().unwrap();
    let (key, der) = (dir.path().join("key"), dir.path().join("der"));
    fs::write(&key, show(pem, &["-pubkey"])).unwrap();
    let (key, der) = (key.to_str().unwrap(), der.to_str().unwrap());
    openssl(&["pkey", "-pubin", "-in", key, "-outform", "DER", "-out", der]).unwrap();
    openssl(&["dgst", "-sha256", "-r", der]).unwrap()[..32].to_owned()
}

/// A self-signed certificate as PIV keeps it in a container (SP 800-73-4 part 1, appendix A): a
/// Key that holds it was not made by Keywright.
pub fn foreign_container() -> Vec<u8> {
    let request = ["req", "-x509", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=foreign"];
    let dir = TempDir::new().unwrap();
    let der = dir.path().join("der");
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-outform", "DER", "-out"];
    openssl(&[&request[..], &key, &[der.to_str().unwrap()]].concat()).unwrap();
    contained(&fs::read(der).unwrap())
}

/// A certificate as PIV keeps it in a container.
pub fn container(pem: &str) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let (text, der) = (dir.path().join("pem"), dir.path().join("der"));
    fs::write(&text, pem).unwrap();
    let (text, out) = (text.to_str().unwrap(), der.to_str().unwrap());
    openssl(&["x509", "-in", text, "-outform", "DER", "-out", out]).unwrap();
    contained(&fs::read(der).unwrap())
}

fn contained(certificate: &[u8]) -> Vec<u8> {
    let fields = [tlv(0x70, certificate), tlv(0x71, &[0]), tlv(0xFE, &[])].concat();
    tlv(0x53, &fields)
}

fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[tag, 0x82], &length as &[u8], value].concat()
}

/// A valid request for a new P-256 key.
pub fn request(name: &str) -> String {
    new_request(name, &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
}

/// A request with an RSA key of this many bits.
pub fn rsa_request(bits: u32) -> String {
    new_request("rsa", &["-newkey", &format!("rsa:{bits}")])
}

/// A request whose signature is wrong in its last byte.
pub fn forged_request() -> String {
    let dir = TempDir::new().unwrap();
    let (pem, der) = (dir.path().join("pem"), dir.path().join("der"));
    fs::write(&pem, request("forged")).unwrap();
    convert(&pem, "PEM", &der, "DER");
    let mut bytes = fs::read(&der).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&der, bytes).unwrap();
    convert(&der, "DER", &pem, "PEM");
    fs::read_to_string(pem).unwrap()
}

fn convert(from: &Path, form: &str, to: &Path, to_form: &str) {
    let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
    openssl(&["req", "-inform", form, "-in", from, "-outform", to_form, "-out", to]).unwrap();
}

fn new_request(name: &str, key: &[&str]) -> String {
    let subject = format!("/CN={name}");
    let fixed = ["req", "-new", "-nodes", "-keyout", "/dev/null", "-subj", &subject];
    openssl(&[&fixed, key].concat()).unwrap()
}

fn openssl(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("openssl").args(arguments).output().expect("openssl is installed");
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        let said = [output.stdout, output.stderr].concat();
        Err(String::from_utf8_lossy(&said).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root and its CRL, each by openssl.
    fn root() -> (String, String) {
        let dir = TempDir::new().unwrap();
        let file = |name: &str| dir.path().join(name).into_os_string().into_string().unwrap();
        let (key, root, index, config) = (file("key"), file("root"), file("index"), file("config"));
        let request =
            ["req", "-x509", "-nodes", "-subj", "/CN=root", "-keyout", &key, "-out", &root];
        let usage = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        let extension = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"];
        openssl(&[&request[..], &usage, &extension].concat()).unwrap();
        fs::write(&index, "").unwrap();
        let text = format!("[ca]\ndefault_ca=d\n[d]\ndatabase={index}\ndefault_md=sha256\n");
        fs::write(&config, text).unwrap();
        let sign = ["ca", "-gencrl", "-crldays", "1", "-config", &config];
        let crl = openssl(&[&sign[..], &["-keyfile", &key, "-cert", &root]].concat()).unwrap();
        (fs::read_to_string(root).unwrap(), crl)
    }

    #[test]
    fn a_chain_passes_with_its_own_root_and_crl_only() {
        let ((root_a, crl_a), (root_b, crl_b)) = (root(), root());
        verify(&root_a, &root_a, &crl_a);
        assert!(try_verify(&root_a, &root_b, &crl_a).is_err());
        assert!(try_verify(&root_a, &root_a, &crl_b).unwrap_err().contains("CRL"));
        assert_eq!(certificates(&[root_a.clone(), root_b.clone()].concat()).len(), 2);
        assert_ne!(key_id(&root_a), key_id(&root_b));
    }

    #[test]
    fn requests_have_the_intended_properties() {
        // Its exit status is 0 either way.
        let check = |pem: &str| {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("request");
            fs::write(&path, pem).unwrap();
            let verify = ["req", "-verify", "-noout", "-in", path.to_str().unwrap()];
            let output = Command::new("openssl").args(verify).output().unwrap();
            String::from_utf8(output.stderr).unwrap().contains("verify OK")
        };
        assert!(check(&request("a lock")));
        assert!(check(&rsa_request(1024)));
        assert!(!check(&forged_request()));
    }
}
