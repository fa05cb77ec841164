package core

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
)

// maxDockerfileText bounds a Dockerfile that is read, in bytes.
const maxDockerfileText = 1 << 20

// readDockerfile is the text that an image is built from, empty if it is not built.
func readDockerfile(image Image) (string, error) {
	if image.Build == nil {
		return "", nil
	}
	f, err := os.Open(image.Build.Dockerfile)
	if err != nil {
		return "", withKind(KindInput, err)
	}
	defer func() { _ = f.Close() }() // it is only read
	text, err := io.ReadAll(io.LimitReader(f, maxDockerfileText+1))
	switch {
	case err != nil:
		return "", withKind(KindInput, err)
	case len(text) > maxDockerfileText:
		return "", Errorf(KindInput, "the Dockerfile %s has more than %d bytes", image.Build.Dockerfile, maxDockerfileText)
	}
	return string(text), nil
}

// TextDigest names a text by its content; that of no text is empty.
func TextDigest(text string) string {
	if text == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
