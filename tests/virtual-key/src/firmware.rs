//! Boots the firmware: PIV application, Trussed service and its back ends, all in one thread. A system
//! call runs the service at once; the product raises an interrupt instead.

use piv_authenticator::{Authenticator, Client, Options};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use sha2::{Digest, Sha256};
use trussed::{
    ClientImplementation,
    backend::BackendId,
    pipe::{ServiceEndpoint, TrussedChannel},
    platform,
    service::Service,
    types::CoreContext,
    virt::{Store, UserInterface},
};
use trussed_auth::AuthExtension;
use trussed_auth_backend::{AuthBackend, FilesystemLayout};
use trussed_chunked::ChunkedExtension;
use trussed_core::types::Location;
use trussed_hpke::HpkeExtension;
use trussed_rsa_alloc::SoftwareRsa;
use trussed_staging::StagingBackend;
use trussed_wrap_key_to_file::WrapKeyToFileExtension;

const BACKENDS: &[BackendId<Backend>] = &[
    BackendId::Custom(Backend::Rsa),
    BackendId::Custom(Backend::Auth),
    BackendId::Custom(Backend::Staging),
    BackendId::Core,
];

enum Backend {
    Auth,
    Staging,
    Rsa,
}

#[derive(trussed_derive::ExtensionId)]
enum Extension {
    Auth = 0,
    Chunked = 1,
    Hpke = 2,
    WrapKeyToFile = 3,
}

#[derive(trussed_derive::ExtensionDispatch)]
#[dispatch(backend_id = "Backend", extension_id = "Extension")]
#[extensions(
    Auth = "AuthExtension",
    Chunked = "ChunkedExtension",
    Hpke = "HpkeExtension",
    WrapKeyToFile = "WrapKeyToFileExtension"
)]
struct Backends {
    #[extensions("Auth")]
    auth: AuthBackend,
    #[extensions("Chunked", "Hpke", "WrapKeyToFile")]
    staging: StagingBackend,
    rsa: SoftwareRsa,
}

struct Board<'a> {
    rng: ChaCha8Rng,
    store: Store<'a>,
    user: UserInterface,
}

impl<'a> platform::Platform for Board<'a> {
    type R = ChaCha8Rng;
    type S = Store<'a>;
    type UI = UserInterface;

    fn rng(&mut self) -> &mut Self::R {
        &mut self.rng
    }

    fn store(&self) -> Self::S {
        self.store
    }

    fn user_interface(&mut self) -> &mut Self::UI {
        &mut self.user
    }
}

/// The service, run in the caller's thread.
struct Inline<'a> {
    service: Service<Board<'a>, Backends>,
    endpoint:
        [ServiceEndpoint<'static, Backend, <Backends as trussed::backend::Dispatch>::Context>; 1],
}

impl platform::Syscall for Inline<'_> {
    fn syscall(&mut self) {
        self.service.process(&mut self.endpoint);
    }
}

/// Boots the PIV application on this flash memory. The serial determines its GUID. Randomness comes from the
/// operating system; the service mixes it into the seed in flash.
///
/// Returns None when called a second time: there is only one channel between application and service.
pub fn boot<'a>(store: Store<'a>, serial: &str) -> Option<Authenticator<impl Client + use<'a>>> {
    static CHANNEL: TrussedChannel = TrussedChannel::new();
    let (requester, responder) = CHANNEL.split()?;
    let board = Board { rng: ChaCha8Rng::from_entropy(), store, user: UserInterface::new() };
    let backends = Backends {
        auth: AuthBackend::new(Location::Internal, FilesystemLayout::V1),
        staging: StagingBackend::new(),
        rsa: SoftwareRsa,
    };
    let context = CoreContext::new(littlefs2_core::path!("piv").into());
    let service = Inline {
        service: Service::with_dispatch(board, backends),
        endpoint: [ServiceEndpoint::new(responder, context, BACKENDS)],
    };
    let client = ClientImplementation::<_, Backends>::new(requester, service, None);
    Some(Authenticator::new(client, Options::new().uuid(Some(guid(serial)))))
}

/// Derives a version 4 UUID (RFC 9562, 5.4) from the serial.
fn guid(serial: &str) -> [u8; 16] {
    let mut guid = [0; 16];
    guid.copy_from_slice(&Sha256::digest(serial)[..16]);
    guid[6] = guid[6] & 0x0F | 0x40;
    guid[8] = guid[8] & 0x3F | 0x80;
    guid
}
