#![allow(clippy::unwrap_used)]
use super::base::Base;
use super::base::tests::entry_of;
use super::error::ShareError;
use super::folder::{Folder, MARKER, TEMPORARY};

fn folder() -> (tempfile::TempDir, Folder) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("inside")).unwrap();
    let (mut folder, marked) = Folder::open(&directory.path().join("inside")).unwrap();
    assert!(!marked);
    folder.mark(true).unwrap();
    (directory, folder)
}

#[test]
fn no_path_leads_out() {
    let (directory, mut folder) = folder();
    std::fs::write(directory.path().join("outside"), "o").unwrap();
    std::os::unix::fs::symlink("..", directory.path().join("inside/up")).unwrap();
    assert!(folder.look(b"up/outside").unwrap().is_none());
    assert!(folder.read(b"up/outside").is_err());
    assert!(folder.look(b"../outside").is_err() || folder.look(b"../outside").unwrap().is_none());
    let (_, temporary) = folder.new_file().unwrap();
    assert!(folder.place(&temporary, b"up/new", None).is_err());
    assert!(!directory.path().join("new").exists());
}

#[test]
fn what_was_written_to_in_the_last_moment_is_not_replaced() {
    let (directory, mut folder) = folder();
    let file = directory.path().join("inside/f");
    std::fs::write(&file, "old").unwrap();
    let expected = folder.look(b"f").unwrap().unwrap();
    std::fs::write(&file, "newer").unwrap();
    let (_, temporary) = folder.new_file().unwrap();
    assert!(matches!(folder.place(&temporary, b"f", Some(&expected)), Err(ShareError::Moved)));
    assert!(matches!(folder.remove(b"f", &expected), Err(ShareError::Moved)));
    assert!(matches!(folder.place(&temporary, b"f", None), Err(ShareError::Moved)));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "newer");
    let expected = folder.look(b"f").unwrap().unwrap();
    folder.place(&temporary, b"f", Some(&expected)).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "");
}

#[test]
fn a_folder_is_shared_by_one_engine() {
    let (directory, first) = folder();
    let (mut second, _) = Folder::open(&directory.path().join("inside")).unwrap();
    assert!(matches!(second.mark(false), Err(ShareError::NotTheFolder { .. })));
    drop(first);
    second.mark(false).unwrap();
}

#[test]
fn an_edit_that_was_swapped_out_as_the_engine_died_is_kept() {
    let (directory, folder) = folder();
    let at = |name: &str| directory.path().join("inside").join(name);
    let mut base = Base::of(folder.marker());
    for name in ["edited", "untouched"] {
        let temporary = at(TEMPORARY).join(name);
        std::fs::write(&temporary, "in step").unwrap();
        let path = [TEMPORARY, "/", name].concat();
        let local = folder.look(path.as_bytes()).unwrap().unwrap();
        base.put(name.as_bytes(), entry_of(local));
        if name == "edited" {
            std::fs::write(&temporary, "edited since").unwrap();
        }
    }
    std::fs::write(at(TEMPORARY).join("half written"), "half").unwrap();
    folder.clear(&base).unwrap();
    assert!(folder.list(TEMPORARY.as_bytes()).unwrap().is_empty());
    let kept = at(".kilofs-share/refused/.kilofs-share/tmp/edited");
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "edited since");
}

#[test]
fn a_folder_is_known_by_its_marker_and_its_place() {
    let (directory, folder) = folder();
    assert_eq!(folder.unsound(), None);
    let (again, marked) = Folder::open(&directory.path().join("inside")).unwrap();
    assert!(marked && again.marker() == folder.marker());
    std::fs::rename(directory.path().join("inside"), directory.path().join("away")).unwrap();
    std::fs::create_dir(directory.path().join("inside")).unwrap();
    assert!(folder.unsound().unwrap().contains("another directory"));
    std::fs::remove_dir(directory.path().join("inside")).unwrap();
    std::fs::rename(directory.path().join("away"), directory.path().join("inside")).unwrap();
    std::fs::remove_file(directory.path().join("inside").join(MARKER)).unwrap();
    assert!(folder.unsound().unwrap().contains("marker"));
}
