//! Every transition, every refused event, and random walks.

use proptest::prelude::*;

use super::*;

const EVENTS: [WizardEvent; 13] = [
    WizardEvent::SetKind,
    WizardEvent::SetName,
    WizardEvent::SelectLocks,
    WizardEvent::Back,
    WizardEvent::Save,
    WizardEvent::PinsComplete,
    WizardEvent::PinLost,
    WizardEvent::Written,
    WizardEvent::Interrupted,
    WizardEvent::Abandoned,
    WizardEvent::KeyLeft,
    WizardEvent::KeysBack,
    WizardEvent::Cancel,
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
        step_before_absence: Step::Name,
        pins: vec![Who::Candidate],
        ..Wizard::new(&[Kind::Master, Kind::Backup, Kind::Sub])
    }
}

/// Makes the call that triggers this event.
fn play(wizard: &mut Wizard, event: WizardEvent) -> Result<(), Refusal> {
    match event {
        WizardEvent::SetKind => wizard.set_kind(Kind::Sub),
        WizardEvent::SetName => wizard.set_name("Anna".into()),
        WizardEvent::SelectLocks => wizard.select_locks(Selection { all: false, count: 2 }),
        WizardEvent::Back => wizard.back(),
        WizardEvent::Save => wizard.save(wizard.revision(), 2, vec![Who::Candidate]),
        WizardEvent::PinsComplete => wizard.pin_accepted(Who::Candidate).map(|_| ()),
        WizardEvent::Cancel => wizard.cancel(),
        other => wizard.apply(other),
    }
}

#[test]
fn only_events_in_the_table_are_accepted() {
    for kind in [Kind::Backup, Kind::Sub] {
        for step in STEPS {
            for event in EVENTS {
                let mut wizard = at(step, kind);
                let row = TRANSITIONS.iter().find(|(from, on, when, _)| {
                    let fits = match when {
                        Kinds::Any => true,
                        Kinds::Sub => kind == Kind::Sub,
                        Kinds::Others => kind != Kind::Sub,
                    };
                    *from == step && *on == event && fits
                });
                let answer = play(&mut wizard, event);
                match row {
                    Some((.., Target::Step(to))) => {
                        assert_eq!((answer, wizard.step), (Ok(()), *to))
                    }
                    Some((.., Target::Before)) => {
                        assert_eq!((answer, wizard.step), (Ok(()), Step::Name));
                    }
                    // Cancelling twice and repeating the chosen kind are no errors.
                    None if event == WizardEvent::Cancel
                        && step.is_end()
                        && step != Step::Finished =>
                    {
                        assert_eq!((answer, wizard.step), (Ok(()), step));
                    }
                    None if event == WizardEvent::SetKind
                        && step == Step::Name
                        && kind == Kind::Sub =>
                    {
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
fn sub_key_wizard_runs_from_offer_to_end() {
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
    wizard.apply(WizardEvent::Written).unwrap();
    assert_eq!(wizard.step(), Step::Finished);
}

#[test]
fn interrupted_write_resumes_at_the_pins() {
    let mut wizard = at(Step::Writing, Kind::Backup);
    wizard.apply(WizardEvent::Interrupted).unwrap();
    assert_eq!(wizard.step(), Step::AwaitingKey);
    wizard.apply(WizardEvent::KeysBack).unwrap();
    assert_eq!(wizard.step(), Step::Pins);
}

#[test]
fn changing_the_kind_clears_the_lock_selection() {
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
    fn random_walks_keep_the_invariants(
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
            saved |= event == WizardEvent::Save;
            if saved {
                // The answers are final after Save.
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

#[test]
fn steps_follow_the_transitions_for_the_kind() {
    let others = [Step::Kind, Step::Name, Step::Review, Step::Pins, Step::Writing, Step::Finished];
    assert_eq!(Wizard::new(&[Kind::Backup, Kind::Sub]).steps(), others);
    let mut sub = others.to_vec();
    sub.insert(2, Step::Locks);
    assert_eq!(Wizard::new(&[Kind::Sub]).steps(), sub);
}
