package core

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bottle-run/bottle/core/trust"
)

// What a restart needs to know of the launch is on the labels of the agent's container: the
// agent cannot change it, and it is found by whoever reaches the engine. It holds no secret.
type restartNotes struct {
	Plan Plan `json:"plan"`
	// Roots are the certificates that the agent trusts beside its image's own, the
	// bottle's first.
	Roots string `json:"roots,omitempty"`
	// Dockerfile is the text that the image was built from, as a digest.
	Dockerfile string `json:"dockerfile,omitempty"`
}

// Bounds of the notes.
const (
	// noteChunk is how long the value of one label is: containerd takes 4096 bytes with
	// the name.
	noteChunk = 3800
	// maxNotes bounds all of them, in bytes.
	maxNotes = 64 << 10
	// maxNotesText bounds what they say, in bytes.
	maxNotesText = 1 << 20
)

// noteRestart adds to the labels of the agent's container what a restart needs.
func (l *launch) noteRestart(labels map[string]string) error {
	notes := restartNotes{Plan: l.plan, Dockerfile: TextDigest(l.dockerfile)}
	// What files hold is in the container, as far as the agent has left it there.
	notes.Plan.Files = make([]File, len(l.plan.Files))
	for i, f := range l.plan.Files {
		f.Content = ""
		notes.Plan.Files[i] = f
	}
	if abs, err := filepath.Abs(notes.Plan.Manifest); err == nil {
		notes.Plan.Manifest = abs
	}
	if l.egress != nil {
		roots, err := l.ownRoots(time.Now())
		if err != nil {
			return err
		}
		notes.Roots = string(trust.PEM(roots))
	}
	encoded, err := notes.encode()
	if err != nil {
		return err
	}
	if len(encoded) > maxNotes {
		l.report.note(stepAgent, fmt.Sprintf("the bottle cannot be restarted: what describes it has %d bytes, and %d fit onto its labels", len(encoded), maxNotes))
		return nil
	}
	n := 0
	for ; len(encoded) > 0; n++ {
		chunk := encoded[:min(noteChunk, len(encoded))]
		labels[noteLabel(n)] = chunk
		encoded = encoded[len(chunk):]
	}
	labels[LabelRestart] = strconv.Itoa(n)
	return nil
}

// Origin is what a bottle was launched from.
type Origin struct {
	// Manifest is the file's absolute path, on the machine that launched the bottle.
	Manifest string
	// Bottle is the name of the manifest's bottle.
	Bottle string
	// Image is how its image is made, Dockerfile the digest of what it was built from; see
	// [TextDigest].
	Image      Image
	Dockerfile string
}

// Origin says what the bottle was launched from.
func (b *Bottle) Origin(ctx context.Context) (Origin, error) {
	notes, err := b.notes(ctx)
	return Origin{Manifest: notes.Plan.Manifest, Bottle: notes.Plan.Bottle, Image: notes.Plan.Image, Dockerfile: notes.Dockerfile}, err
}

func (b *Bottle) notes(ctx context.Context) (restartNotes, error) {
	c, err := b.rt.InspectContainer(ctx, b.agent())
	if err != nil {
		return restartNotes{}, err
	}
	notes, err := readRestart(c.Labels)
	if err != nil {
		return notes, Errorf(KindUnsupported, "what bottle %s was launched from is not known: %w", b.Name, err)
	}
	return notes, nil
}

func noteLabel(n int) string { return LabelRestart + "." + strconv.Itoa(n) }

func (n restartNotes) encode() (string, error) {
	text, err := json.Marshal(n)
	if err != nil {
		return "", err
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(text); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(packed.Bytes()), nil
}

// readRestart reads the notes from labels. An image may have labels of the same names: only
// those that the number counts are read, and all of them are the launch's own.
func readRestart(labels map[string]string) (restartNotes, error) {
	var notes restartNotes
	count, err := strconv.Atoi(labels[LabelRestart])
	if err != nil || count < 1 || count > maxNotes/noteChunk+1 {
		return notes, fmt.Errorf("it was launched by another version of bottle, or its description is too long for labels")
	}
	var encoded strings.Builder
	for n := range count {
		encoded.WriteString(labels[noteLabel(n)])
	}
	packed, err := base64.StdEncoding.DecodeString(encoded.String())
	if err != nil {
		return notes, fmt.Errorf("its labels %s cannot be read: %w", LabelRestart, err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	var text []byte
	if err == nil {
		text, err = io.ReadAll(io.LimitReader(r, maxNotesText))
	}
	if err == nil {
		err = json.Unmarshal(text, &notes)
	}
	if err == nil && notes.Plan.Git != nil {
		err = notes.Plan.Git.Restore()
	}
	if err != nil {
		return notes, fmt.Errorf("its labels %s cannot be read: %w", LabelRestart, err)
	}
	return notes, nil
}
