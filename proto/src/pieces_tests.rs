use proptest::prelude::*;

use super::*;

fn file(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|place| (place / 251) as u8 ^ place as u8 ^ seed).collect()
}

fn pieces(file: &[u8]) -> Vec<Piece> {
    cut(file).map(|message| Piece::read(&message).unwrap()).collect()
}

/// The files that a collector completes from these pieces, with their senders.
fn collect(all: impl IntoIterator<Item = (u8, Piece)>) -> Vec<(u8, Vec<u8>)> {
    let mut collector = Collector::new(MAX_PIECES);
    let add = |(sender, piece)| Some((sender, collector.add(sender, piece).unwrap()?));
    all.into_iter().filter_map(add).collect()
}

#[test]
fn lengths_at_the_borders() {
    for (length, expected) in [(1, 1), (PIECE - 1, 1), (PIECE, 1), (PIECE + 1, 2), (3 * PIECE, 3)] {
        let whole = file(length, 1);
        let pieces = pieces(&whole);
        assert_eq!((pieces.len(), count(&whole)), (expected, expected as u32), "{length}");
        assert!(cut(&whole).all(|message| message.len() <= HEAD + PIECE));
        assert_eq!(collect(pieces.into_iter().map(|p| (0, p))), [(0, whole)]);
    }
    assert_eq!(cut(&[]).count(), 0);
}

/// A piece fits into a packet together with its topic.
const _: () = assert!(HEAD + PIECE + 512 <= crate::link::MAX_PACKET as usize);

#[test]
fn malformed_pieces_are_refused() {
    let good = cut(&file(PIECE + 5, 1)).collect::<Vec<_>>();
    let with = |message: &[u8], number: u32, count: u32| {
        let mut message = message.to_vec();
        message[32..36].copy_from_slice(&number.to_be_bytes());
        message[36..40].copy_from_slice(&count.to_be_bytes());
        message
    };
    let long = [&good[0][..], b"x"].concat();
    for (what, bad) in [
        ("nothing", vec![]),
        ("a head alone", good[1][..HEAD].to_vec()),
        ("half a head", good[1][..HEAD - 1].to_vec()),
        ("a short one in the middle", with(&good[1], 0, 2)),
        ("a long one", long.clone()),
        ("a long one at the end", with(&long, 1, 2)),
        ("behind the end", with(&good[0], 2, 2)),
        ("of none", with(&good[1], 0, 0)),
        ("too many", with(&good[0], 0, MAX_PIECES + 1)),
        ("the largest numbers", with(&good[1], u32::MAX, u32::MAX)),
    ] {
        assert_eq!(Piece::read(&bad), Err(PieceError::Malformed), "{what}");
    }
    assert!(Piece::read(&with(&good[0], 0, MAX_PIECES)).is_ok());
}

#[test]
fn pieces_that_do_not_match_their_digest_are_dropped() {
    let whole = file(PIECE + 5, 1);
    let right = pieces(&whole);
    let mut wrong = right[0].clone();
    wrong.bytes[7] ^= 1;
    let mut collector = Collector::new(MAX_PIECES);
    assert_eq!(collector.add(0, wrong), Ok(None));
    assert_eq!(collector.add(0, right[1].clone()), Err(PieceError::OtherFile));
    // The right pieces are accepted when they arrive again.
    assert_eq!(collector.add(0, right[0].clone()), Ok(None));
    assert_eq!(collector.add(0, right[1].clone()), Ok(Some(whole)));
}

#[test]
fn an_old_and_a_new_file_of_one_sender_do_not_mix() {
    let (old, new) = (file(3 * PIECE, 1), file(3 * PIECE, 2));
    let (old, mixed) = (pieces(&old), pieces(&new));
    // As a broker has them while a station publishes: new pieces, the old rest, the new rest.
    let heard = [&mixed[..1], &old[1..], &mixed[1..]].concat();
    assert_eq!(collect(heard.into_iter().map(|p| (0, p))), [(0, new)]);
}

#[test]
fn number_of_incomplete_files_is_bounded() {
    let mut collector = Collector::new(MAX_PIECES);
    for sender in 0..2 * MAX_SETS {
        for seed in 0..5 {
            let first = pieces(&file(PIECE + 1 + sender, seed)).remove(0);
            assert_eq!(collector.add(sender, first), Ok(None));
            assert!(collector.of(&sender) <= SETS_OF_ONE && collector.sets.len() <= MAX_SETS);
        }
    }
    assert_eq!(collector.sets.len(), MAX_SETS);
    assert_eq!(collector.take_dropped(), 10 * MAX_SETS - MAX_SETS);
    assert_eq!(collector.take_dropped(), 0);
    // A file that gets pieces stays while others come and go.
    let whole = pieces(&file(5 * PIECE, 9));
    for piece in &whole[..4] {
        assert_eq!(collector.add(1000, piece.clone()), Ok(None));
        for sender in 0..MAX_SETS / 2 {
            let other = pieces(&file(PIECE + 7 + sender, 1)).remove(0);
            assert_eq!(collector.add(sender, other), Ok(None));
        }
    }
    assert!(collector.add(1000, whole[4].clone()).unwrap().is_some());
}

#[test]
fn bytes_of_incomplete_files_are_bounded() {
    let mut collector = Collector::new(MAX_PIECES);
    let one = Piece { digest: [1; 32], number: 0, count: MAX_PIECES, bytes: vec![0; PIECE] };
    for sender in 0..4u8 {
        for number in 0..MAX_PIECES / 2 {
            assert_eq!(collector.add(sender, Piece { number, ..one.clone() }), Ok(None));
            assert!(collector.bytes() <= (MAX_PIECES as usize + 1) * PIECE);
        }
    }
    assert_eq!(collector.take_dropped(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// In any order, among pieces of other senders.
    #[test]
    fn pieces_in_any_order_make_the_files(lengths in prop::collection::vec(1..4 * PIECE, 1..4), order in any::<u64>()) {
        let files: Vec<_> = lengths.iter().zip(0u8..).map(|(n, sender)| (sender, file(*n, sender))).collect();
        let mut all: Vec<_> = files
            .iter()
            .flat_map(|(sender, file)| pieces(file).into_iter().map(|piece| (*sender, piece)))
            .collect();
        let hash = |(sender, piece): &(u8, Piece)| {
            Sha256::digest([&order.to_be_bytes()[..], &[*sender], &piece.number.to_be_bytes()].concat())
        };
        all.sort_by_key(hash);
        let mut found = collect(all);
        found.sort();
        prop_assert_eq!(found, files);
    }
}

#[test]
fn a_collector_of_short_files_takes_no_long_ones() {
    let mut collector = Collector::new(1);
    let long = pieces(&file(PIECE + 1, 1));
    assert_eq!(collector.add(0, long[0].clone()), Err(PieceError::Malformed));
    assert_eq!(collector.bytes(), 0);
    let short = file(PIECE, 2);
    assert_eq!(collector.add(0, pieces(&short)[0].clone()), Ok(Some(short)));
}
