package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Dir is the user's directory for sessions: XDG_STATE_HOME/bottle/sessions, or
// below ~/.local/state (XDG Base Directory Specification 0.8, by which a relative
// path does not count).
func Dir(lookupEnv func(string) (string, bool), home string) (string, error) {
	state, _ := lookupEnv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		if !filepath.IsAbs(home) {
			return "", errors.New("there is no place for the records of bottles: set XDG_STATE_HOME or HOME to an absolute path")
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "bottle", "sessions"), nil
}

// Store is a directory of sessions. It is safe for concurrent use, by several
// processes too.
type Store struct {
	dir string
	sys System
}

// Open makes the directory if it is missing, and refuses one that others could
// change.
func Open(dir string, sys System) (*Store, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("the session directory %q is not absolute", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the session directory: %w%s", err, advice(err))
	}
	return At(dir, sys)
}

// At is a directory that is there already; it changes nothing. One that is missing
// is fs.ErrNotExist.
func At(dir string, sys System) (*Store, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, fmt.Errorf("session directory: %w", err)
	}
	uid, known := owner(info)
	switch {
	case !info.IsDir():
		return nil, fmt.Errorf("session directory %s: it is not a directory", dir)
	case known && uid != os.Getuid():
		return nil, fmt.Errorf("session directory %s: it belongs to user %d and you are %d: set XDG_STATE_HOME to a directory of your own", dir, uid, os.Getuid())
	case known && info.Mode().Perm()&0o022 != 0:
		return nil, fmt.Errorf("session directory %s: others may write to it (%v): chmod 700 it", dir, info.Mode().Perm())
	}
	return &Store{dir: dir, sys: sys}, nil
}

// advice says what to do about an error of the file system.
func advice(err error) string {
	if errors.Is(err, fs.ErrPermission) || isReadOnly(err) {
		return ": make it writable, or set XDG_STATE_HOME to a directory that is"
	}
	if isFull(err) {
		return ": free some room, or set XDG_STATE_HOME to another place"
	}
	return ""
}

// Dir is the directory's path.
func (s *Store) Dir() string { return s.dir }

const (
	recordExt = ".json"
	lockExt   = ".lock"
	tempExt   = ".tmp"
)

func (s *Store) path(launch, ext string) string { return filepath.Join(s.dir, launch+ext) }

// Session is a bottle's record whose lock this process holds. It is for one
// goroutine at a time.
type Session struct {
	store  *Store
	lock   *os.File
	record Record
}

// ErrAlive is a session whose owner lives, or may live.
var ErrAlive = errors.New("its owner is alive")

// Begin writes the record of a bottle that is about to be launched, with this
// process as its owner. Version, Owner and an empty Phase are filled in. Nothing
// must be made on the engine before it has returned.
func (s *Store) Begin(r Record) (*Session, error) {
	r.Version, r.Owner = Version, s.sys.Self()
	if r.Phase == "" {
		r.Phase = PhaseLaunching
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("record of bottle %s: %w", r.Bottle, err)
	}
	var held *os.File
	var err error
	// Who tidies up may have taken it for a moment, for that of a process that died.
	for range 100 {
		if held, err = lock(s.path(r.Launch, lockExt)); !errors.Is(err, errLocked) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("record of launch %s: %w%s", r.Launch, err, advice(err))
	}
	session := &Session{store: s, lock: held, record: r}
	if _, err := os.Lstat(s.path(r.Launch, recordExt)); err == nil {
		session.Release()
		return nil, fmt.Errorf("record of launch %s: %w", r.Launch, fs.ErrExist)
	}
	if err := session.write(r); err != nil {
		return nil, errors.Join(err, session.Remove())
	}
	return session, nil
}

// Take hands over the session of an owner that is dead, or that has detached its
// bottle, to this process, for clearing up. It is ErrAlive if the owner lives or
// may live or another process has taken it, and fs.ErrNotExist if there is none.
// The record keeps its owner; see [Session.Own].
func (s *Store) Take(launch string) (*Session, error) {
	return s.take(launch, func(r Record) error {
		if r.Detached {
			return nil
		}
		if life := s.sys.Life(r.Owner); life != Dead {
			return fmt.Errorf("session of launch %s: %w (process %d on %s: %s)", launch, ErrAlive, r.Owner.PID, r.Owner.Host, life)
		}
		return nil
	})
}

// ErrDetached is a session whose bottle lives on by design.
var ErrDetached = errors.New("its bottle is detached")

// Inherit is [Store.Take] for who knows that the owner is dead, or about to be: it is
// only asked whether it was this one. A detached bottle's session is ErrDetached, and
// that of another owner ErrAlive.
func (s *Store) Inherit(launch string, owner Process) (*Session, error) {
	return s.take(launch, func(r Record) error {
		switch {
		case r.Detached:
			return fmt.Errorf("session of launch %s: %w", launch, ErrDetached)
		case r.Owner != owner:
			return fmt.Errorf("session of launch %s: %w (process %d on %s)", launch, ErrAlive, r.Owner.PID, r.Owner.Host)
		}
		return nil
	})
}

// take takes the lock of a session whose record may be taken.
func (s *Store) take(launch string, may func(Record) error) (*Session, error) {
	if !validLaunch.MatchString(launch) {
		return nil, fmt.Errorf("there is no launch %q: %w", launch, fs.ErrNotExist)
	}
	if _, err := os.Lstat(s.path(launch, recordExt)); err != nil {
		return nil, fmt.Errorf("session of launch %s: %w", launch, err)
	}
	held, err := lock(s.path(launch, lockExt))
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("session of launch %s: %w: %w", launch, ErrAlive, err)
	}
	if err != nil {
		return nil, fmt.Errorf("session of launch %s: %w%s", launch, err, advice(err))
	}
	session := &Session{store: s, lock: held}
	if session.record, err = s.read(launch); err == nil {
		err = may(session.record)
	}
	if err != nil {
		session.Release()
		return nil, err
	}
	return session, nil
}

// Record is the session's record as it was written last.
func (s *Session) Record() Record { return s.record }

// Update changes the record. If that fails, the old one stays.
func (s *Session) Update(change func(*Record)) error {
	r := s.record
	r.Containers, r.Networks = slices.Clone(r.Containers), slices.Clone(r.Networks)
	change(&r)
	if r.Launch != s.record.Launch {
		return fmt.Errorf("record of launch %s: its launch cannot be changed", s.record.Launch)
	}
	if err := r.check(); err != nil {
		return fmt.Errorf("record of launch %s: %w", r.Launch, err)
	}
	return s.write(r)
}

// Own makes this process the owner, which removes the bottle: if it dies amid that, the
// session is an abandoned one.
func (s *Session) Own() error {
	return s.Update(func(r *Record) { r.Owner, r.Phase, r.Detached = s.store.sys.Self(), PhaseClosing, false })
}

// Detach notes that the bottle lives on without its owner, and gives the lock up.
func (s *Session) Detach() error {
	err := s.Update(func(r *Record) { r.Detached, r.Phase = true, PhaseRunning })
	if err == nil {
		s.Release()
	}
	return err
}

// Release gives the lock up and keeps the record: something is left that the next
// command has to clear up.
func (s *Session) Release() {
	if s.lock != nil {
		_ = s.lock.Close()
		s.lock = nil
	}
}

// Remove removes the record when nothing is left of the bottle.
func (s *Session) Remove() error {
	var errs []error
	for _, ext := range []string{recordExt, tempExt, lockExt} {
		if err := os.Remove(s.store.path(s.record.Launch, ext)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove the record of bottle %s: %w", s.record.Bottle, err))
		}
	}
	s.Release()
	return errors.Join(errs...)
}

// write puts a record in the old one's place.
func (s *Session) write(r Record) (err error) {
	if s.lock == nil {
		return fmt.Errorf("record of launch %s: the session was given up", r.Launch)
	}
	temp := s.store.path(r.Launch, tempExt)
	defer func() {
		if err != nil {
			_ = os.Remove(temp)
			err = fmt.Errorf("write the record of bottle %s: %w%s", r.Bottle, err, advice(err))
		}
	}()
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if len(content) > maxRecord {
		return fmt.Errorf("it would have %d bytes, and %d is the most", len(content), maxRecord)
	}
	// What an earlier write left is nobody's: this process has the lock.
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(content, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(temp, s.store.path(r.Launch, recordExt)); err != nil {
		return err
	}
	s.record = r
	return syncDir(s.store.dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Entry is one session in a list.
type Entry struct {
	// File is the record's path.
	File   string
	Record Record
	// Err says why the record cannot be used; it names the file. Record is then
	// empty.
	Err error
	// Owner is whether the bottle's owner lives.
	Owner Life
}

// Abandoned reports that the bottle's owner died without clearing up: [Store.Take]
// it and do so.
func (e Entry) Abandoned() bool { return e.Err == nil && !e.Record.Detached && e.Owner == Dead }

// List reads all records, oldest first, those that cannot be used last. It takes no
// lock and changes nothing.
func (s *Store) List() ([]Entry, error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	var list []Entry
	for _, f := range files {
		launch, ok := strings.CutSuffix(f.Name(), recordExt)
		if !ok {
			continue
		}
		e := Entry{File: filepath.Join(s.dir, f.Name()), Owner: Unknown}
		e.Record, e.Err = s.read(launch)
		switch {
		case errors.Is(e.Err, fs.ErrNotExist):
			continue // its bottle ended just now
		case e.Err == nil:
			e.Owner = s.sys.Life(e.Record.Owner)
		}
		list = append(list, e)
	}
	slices.SortStableFunc(list, func(a, b Entry) int {
		switch {
		case (a.Err == nil) != (b.Err == nil):
			if a.Err == nil {
				return -1
			}
			return 1
		case !a.Record.Created.Equal(b.Record.Created):
			return a.Record.Created.Compare(b.Record.Created)
		}
		return strings.Compare(a.File, b.File)
	})
	return list, nil
}

// Load reads one record. It is fs.ErrNotExist if there is none.
func (s *Store) Load(launch string) (Entry, error) {
	e := Entry{File: s.path(launch, recordExt), Owner: Unknown}
	if e.Record, e.Err = s.read(launch); e.Err != nil {
		return Entry{}, e.Err
	}
	e.Owner = s.sys.Life(e.Record.Owner)
	return e, nil
}

// read reads a record; its errors name the file.
func (s *Store) read(launch string) (r Record, err error) {
	name := s.path(launch, recordExt)
	defer func() {
		if err != nil {
			r, err = Record{}, fmt.Errorf("session record %s: %w", name, err)
		}
	}()
	if !validLaunch.MatchString(launch) {
		return r, errors.New("its name is not that of a launch")
	}
	f, err := os.OpenFile(name, os.O_RDONLY|noFollow, 0)
	if err != nil {
		return r, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return r, err
	}
	if uid, known := owner(info); !info.Mode().IsRegular() || known && uid != os.Getuid() {
		return r, errors.New("it is not a regular file of yours")
	}
	content, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err != nil {
		return r, err
	}
	if len(content) > maxRecord {
		return r, fmt.Errorf("it has more than %d bytes", maxRecord)
	}
	if r, err = decode(content); err == nil && r.Launch != launch {
		err = fmt.Errorf("it is the record of launch %s", r.Launch)
	}
	return r, err
}

// Discard removes a record that cannot be used, after the user has agreed. One that
// can is refused.
func (s *Store) Discard(e Entry) error {
	if e.Err == nil || filepath.Dir(e.File) != s.dir || filepath.Ext(e.File) != recordExt {
		return fmt.Errorf("session record %s: it is not one that cannot be used", e.File)
	}
	return os.Remove(e.File)
}

// Tidy removes what processes left that died between a lock and its record: locks
// and half-written files that belong to no record and to no process. It returns how many
// locks without a record a process still holds: most often it is about to write one.
func (s *Store) Tidy() (held int, err error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return 0, fmt.Errorf("tidy sessions: %w", err)
	}
	var errs []error
	for _, f := range files {
		launch, ext := strings.TrimSuffix(f.Name(), filepath.Ext(f.Name())), filepath.Ext(f.Name())
		if ext != lockExt && ext != tempExt || !validLaunch.MatchString(launch) {
			continue
		}
		if _, err := os.Lstat(s.path(launch, recordExt)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		own, err := lock(s.path(launch, lockExt))
		if err != nil {
			held++
			continue
		}
		orphan := &Session{store: s, lock: own, record: Record{Launch: launch}}
		if _, err := os.Lstat(s.path(launch, recordExt)); errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, orphan.Remove())
		}
		orphan.Release()
	}
	return held, errors.Join(errs...)
}
