//! Every edge, every forbidden event, and random walks.

use proptest::prelude::*;

use super::*;

const EVENTS: [Event; 13] = [
    Event::SetKind,
    Event::SetName,
    Event::SelectLocks,
    Event::Back,
    Event::Save,
    Event::PinsComplete,
    Event::PinLost,
    Event::Written,
    Event::Interrupted,
    Event::Abandoned,
    Event::KeyLeft,
    Event::KeysBack,
    Event::Cancel,
];

const STEPS: [Step; 10] = [
    Step::Kind,
    Step::Name,
    Step::Locks,
    Step::Review,
    Step::Pins,
    Step::Writing,
    Step::Finished,
    Step::Cancelled,
    Step::Failed,
    Step::AwaitingKey,
];

/// A wizard at the given step.
fn at(step: Step, kind: Kind) -> Wizard {
    Wizard {
        kind: Some(kind),
        step,
        before_absence: Step::Name,
        pins: vec![Who::Candidate],
        ..Wizard::new(&[Kind::Master, Kind::Backup, Kind::Sub])
    }
}

/// Lets an event happen by the call that stands for it.
fn play(wizard: &mut Wizard, event: Event) -> Result<(), Refusal> {
    match event {
        Event::SetKind => wizard.set_kind(Kind::Sub),
        Event::SetName => wizard.set_name("Anna".into()),
        Event::SelectLocks => wizard.select_locks(Selection { all: false, count: 2 }),
        Event::Back => wizard.back(),
        Event::Save => wizard.save(wizard.revision(), 2, vec![Who::Candidate]),
        Event::PinsComplete => wizard.pin_accepted(Who::Candidate).map(|_| ()),
        Event::Cancel => wizard.cancel(),
        other => wizard.happen(other),
    }
}

#[test]
fn an_event_happens_exactly_where_the_table_has_a_row() {
    for kind in [Kind::Backup, Kind::Sub] {
        for step in STEPS {
            for event in EVENTS {
                let mut wizard = at(step, kind);
                let row = EDGES.iter().find(|(from, on, when, _)| {
                    let fits = match when {
                        For::Any => true,
                        For::Sub => kind == Kind::Sub,
                        For::Others => kind != Kind::Sub,
                    };
                    *from == step && *on == event && fits
                });
                let answer = play(&mut wizard, event);
                match row {
                    Some((.., To::Step(to))) => assert_eq!((answer, wizard.step), (Ok(()), *to)),
                    Some((.., To::Before)) => {
                        assert_eq!((answer, wizard.step), (Ok(()), Step::Name));
                    }
                    // Giving up twice, and choosing the chosen kind again, are no errors.
                    None if event == Event::Cancel && step.is_end() && step != Step::Finished => {
                        assert_eq!((answer, wizard.step), (Ok(()), step));
                    }
                    None if event == Event::SetKind && step == Step::Name && kind == Kind::Sub => {
                        assert_eq!((answer, wizard.step), (Ok(()), step));
                    }
                    None => {
                        assert_eq!(answer, Err(Refusal::Step { at: step }), "{step:?} {event:?}");
                        assert_eq!(wizard, at(step, kind), "a refused event changes nothing");
                    }
                }
            }
        }
    }
}

#[test]
fn a_sub_key_from_offer_to_end() {
    let mut wizard = Wizard::new(&[Kind::Backup, Kind::Sub]);
    assert_eq!(wizard.set_kind(Kind::Master), Err(Refusal::Kind(Kind::Master)));
    wizard.set_kind(Kind::Sub).unwrap();
    wizard.set_name("Anna".into()).unwrap();
    wizard.select_locks(Selection { all: false, count: 2 }).unwrap();
    let reviewed = wizard.revision();
    wizard.back().unwrap();
    wizard.select_locks(Selection { all: true, count: 3 }).unwrap();
    assert_eq!(
        wizard.save(reviewed, 3, vec![]),
        Err(Refusal::Revision { given: reviewed, current: wizard.revision() })
    );
    wizard.save(wizard.revision(), 3, vec![Who::Issuer, Who::Candidate]).unwrap();
    assert_eq!(wizard.back(), Err(Refusal::Step { at: Step::Pins }));
    assert_eq!(wizard.pin_accepted(Who::Issuer), Ok(false));
    wizard.need_pin(Who::CandidateNew);
    assert_eq!(wizard.pin_accepted(Who::Candidate), Ok(false));
    assert_eq!(wizard.pin_accepted(Who::CandidateNew), Ok(true));
    assert_eq!(wizard.step(), Step::Writing);
    wizard.happen(Event::Written).unwrap();
    assert_eq!(wizard.step(), Step::Finished);
}

#[test]
fn a_broken_write_goes_on_with_the_pins() {
    let mut wizard = at(Step::Writing, Kind::Backup);
    wizard.happen(Event::Interrupted).unwrap();
    assert_eq!(wizard.step(), Step::AwaitingKey);
    wizard.happen(Event::KeysBack).unwrap();
    assert_eq!(wizard.step(), Step::Pins);
}

#[test]
fn another_kind_forgets_the_selection() {
    let mut wizard = Wizard::new(&[Kind::Backup, Kind::Sub]);
    wizard.set_kind(Kind::Sub).unwrap();
    wizard.set_name("Anna".into()).unwrap();
    wizard.select_locks(Selection { all: false, count: 2 }).unwrap();
    for _ in 0..3 {
        wizard.back().unwrap();
    }
    wizard.set_kind(Kind::Backup).unwrap();
    assert_eq!(wizard.selection(), Selection::default());
    assert_eq!(wizard.name(), "Anna");
}

proptest! {
    #[test]
    fn random_walks_keep_the_rules(
        events in prop::collection::vec(prop::sample::select(EVENTS.to_vec()), 0..60),
    ) {
        let mut wizard = Wizard::new(&[Kind::Backup, Kind::Sub]);
        let (mut saved, mut ended) = (false, false);
        for event in events {
            let before = wizard.clone();
            let answer = play(&mut wizard, event);
            if answer.is_err() {
                prop_assert_eq!(&wizard, &before);
                continue;
            }
            prop_assert!(wizard.revision >= before.revision);
            prop_assert!(!ended || wizard.step == before.step, "an end is left");
            saved |= event == Event::Save;
            if saved {
                // What was reviewed is what is written.
                prop_assert_eq!(&wizard.name, &before.name);
                prop_assert_eq!(wizard.kind, before.kind);
                prop_assert_eq!(wizard.revision, before.revision);
            }
            if matches!(wizard.step, Step::Writing | Step::Finished) {
                prop_assert!(saved && wizard.pins.is_empty());
            }
            if wizard.step == Step::Locks {
                prop_assert_eq!(wizard.kind, Some(Kind::Sub));
            }
            ended = wizard.step.is_end();
        }
    }
}
