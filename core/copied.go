package core

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/core/changes"
	"github.com/bottle-run/bottle/core/internal/inside"
	"github.com/bottle-run/bottle/core/patch"
	"github.com/bottle-run/bottle/core/workspace"
)

// recordFile is where the record of what was copied lies, in the bottle.
const recordFile = inside.Dir + "/workspace"

// copied says which of the user's files a bottle has a copy of.
type copied struct {
	Source string `json:"source"`
	Target string `json:"target"`
	key    string // of the seal on the record
}

// labelWorkspace notes on the agent's container what will be copied into it.
func (l *launch) labelWorkspace(labels map[string]string) error {
	if l.plan.Workspace.Source == "" {
		return nil
	}
	l.copied = copied{Source: l.plan.Workspace.Source, Target: l.plan.Workspace.Target, key: changes.NewKey()}
	text, err := json.Marshal(l.copied)
	labels[LabelWorkspace], labels[LabelSeal] = string(text), l.copied.key
	return err
}

func copiedFrom(labels map[string]string) (c copied) {
	if text := labels[LabelWorkspace]; text != "" && json.Unmarshal([]byte(text), &c) != nil {
		return copied{} // another version's
	}
	c.key = labels[LabelSeal]
	return c
}

// workspaceItem is the copy of the user's files and, after it, the record of what they were.
func (l *launch) workspaceItem() item {
	ws := l.plan.Workspace
	return item{ws.Target, func(ctx context.Context, w *tar.Writer, name string) error {
		record := &changes.Record{Ignore: ws.Ignore, GitIgnore: ws.GitIgnore}
		err := l.tree.WriteNoted(ctx, w, name, l.user.UID, l.user.GID, func(n workspace.Noted) { noteFile(record, n) })
		if err != nil || l.plan.ReadOnly { // a read-only root takes no record
			return err
		}
		sealed, err := record.Seal(l.copied.key)
		if err != nil {
			return err
		}
		// The archive is one of the root directory, and the record's directory is there: it is no
		// item of its own, for which the engine would be asked.
		err = w.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Name: strings.TrimPrefix(recordFile, "/"), Mode: 0o444, Size: int64(len(sealed)), ModTime: time.Now(), Format: tar.FormatPAX,
		})
		if err == nil {
			_, err = w.Write(sealed)
		}
		return err
	}}
}

// noteFile adds a file to a record, but for a repository's own.
func noteFile(r *changes.Record, n workspace.Noted) {
	if patch.CheckName(n.Name) != nil {
		return
	}
	f := changes.File{Name: n.Name, Kind: changes.Regular, Size: n.Size, Sum: n.Sum}
	switch {
	case n.Target != "":
		f = changes.LinkTo(n.Name, n.Target)
	case n.Mode&0o100 != 0:
		f.Kind = changes.Executable
	}
	r.Files = append(r.Files, f)
}

// record reads back what the agent was given.
func (b *Bottle) record(ctx context.Context) (*changes.Record, error) {
	if b.copied.Source == "" {
		return nil, Errorf(KindInput, "bottle %s has no copy of your files: it was launched without a workspace, or by another version of bottle", b.Name)
	}
	archive, err := b.rt.CopyFrom(ctx, b.agent(), recordFile)
	if errdefs.IsNotFound(err) {
		return nil, Errorf(KindInput, "bottle %s has no record of the files that it was given: it is read-only, or the agent has removed the record", b.Name)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = archive.Close() }()
	t := tar.NewReader(archive)
	h, err := t.Next()
	if err != nil {
		return nil, err
	}
	if h.Typeflag != tar.TypeReg || h.Size > changes.MaxRecord {
		return nil, withKind(KindInput, changes.ErrSeal)
	}
	var data bytes.Buffer
	if _, err := io.Copy(&data, t); err != nil {
		return nil, err
	}
	r, err := changes.Unseal(data.Bytes(), b.copied.key)
	if errors.Is(err, changes.ErrSeal) {
		return nil, Errorf(KindInput, "bottle %s: %w: what the agent has changed cannot be told. Compare a copy: bottle cp %s:%s DIR", b.Name, err, b.Name, b.copied.Target)
	}
	return r, err
}

// snapshot reads what the workspace holds now.
func (b *Bottle) snapshot(ctx context.Context, opts changes.Options) (s *changes.Snapshot, err error) {
	archive, err := b.rt.CopyFrom(ctx, b.agent(), b.copied.Target)
	if errdefs.IsNotFound(err) {
		return nil, Errorf(KindNotFound, "bottle %s has no %s any more", b.Name, b.copied.Target)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if closed := archive.Close(); err == nil && closed != nil {
			err = errors.Join(closed, s.Close())
		}
	}()
	return changes.Read(ctx, archive, opts)
}
