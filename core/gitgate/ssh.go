package gitgate

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1" // what known_hosts files are hashed with
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/sidecar/config"
)

const (
	// maxKey bounds the file of a key, in bytes.
	maxKey = 64 << 10
	// maxKnownHosts bounds a file of known hosts, in bytes.
	maxKnownHosts = 4 << 20
)

// ssh reads the key and the known hosts of a repository.
func (b *builder) ssh(r *Repository, m manifest.Repository, u *config.GitURL) {
	r.SSHKey = b.Path(m.SSHKey)
	r.Credential = &config.GitCredential{Secret: KeySecret(r.Name), Kind: config.GitSSHKey}
	key, err := readKey(r.SSHKey)
	if err != nil {
		b.fail(r.Name, "ssh_key", "%v", err)
	} else {
		b.secrets[KeySecret(r.Name)] = base64.StdEncoding.EncodeToString(key)
		for _, form := range []string{string(key), strings.TrimRight(string(key), "\r\n")} {
			b.keptFromAgent([]string{"git", r.Name, "ssh_key"}, r.SSHKey, form)
		}
	}
	address := net.JoinHostPort(u.Host, strconv.Itoa(int(u.Port)))
	good := true
	for i, file := range m.KnownHosts {
		path := b.Path(file)
		r.KnownHosts = append(r.KnownHosts, path)
		lines, err := readKnownHosts(path, address)
		if err != nil {
			good = false
			b.Fail([]string{"git", r.Name, "known_hosts", strconv.Itoa(i)}, "known_hosts: %v", err)
		}
		r.hosts = append(r.hosts, lines...)
	}
	if good && len(r.hosts) == 0 {
		b.fail(r.Name, "known_hosts", "no line names %s: compare what ssh-keyscan prints for it with what its operator publishes, and add that", knownhosts.Normalize(address))
	}
}

// cause is err without the path.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// read reads a file of a bounded size.
func read(path string, most int64) ([]byte, fs.FileInfo, error) {
	info, err := os.Stat(path) // before it is opened: a FIFO would be waited for
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, cause(err))
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is no file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, cause(err))
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, cause(err))
	}
	if int64(len(data)) > most {
		return nil, nil, fmt.Errorf("%s is larger than %d KiB", path, most>>10)
	}
	return data, info, nil
}

// readKey reads the file of a key and says what is wrong with it.
func readKey(path string) ([]byte, error) {
	key, info, err := read(path, maxKey)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("others can read or write %s (%04o): chmod 600 %[1]s", path, mode)
	}
	_, err = ssh.ParsePrivateKey(key)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return nil, fmt.Errorf("%s has a passphrase, which nobody could enter: give a key without, made for this", path)
	case err != nil:
		return nil, fmt.Errorf("%s is no private key of OpenSSH or in PEM", path)
	}
	return key, nil
}

// readKnownHosts returns the lines of a file that may be about a server, after checking
// all of them.
func readKnownHosts(path, address string) ([]string, error) {
	data, _, err := read(path, maxKnownHosts)
	if err != nil {
		return nil, err
	}
	name := knownhosts.Normalize(address)
	var lines []string
	number := 0
	for line := range bytes.Lines(data) {
		number++
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		_, hosts, _, _, _, err := ssh.ParseKnownHosts([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("%s:%d: this is no line of a known_hosts file", path, number)
		}
		if slices.ContainsFunc(hosts, func(h string) bool { return mayMean(h, name) }) {
			lines = append(lines, text)
		}
	}
	return lines, nil
}

// mayMean reports whether a pattern of known_hosts can be about a host. The gate decides
// whether it is.
func mayMean(pattern, name string) bool {
	if hash, ok := strings.CutPrefix(pattern, "|1|"); ok {
		salt, want, _ := strings.Cut(hash, "|")
		key, err := base64.StdEncoding.DecodeString(salt)
		if err != nil {
			return false
		}
		mac := hmac.New(sha1.New, key)
		_, _ = io.WriteString(mac, name) // it never fails
		return base64.StdEncoding.EncodeToString(mac.Sum(nil)) == want
	}
	return strings.ContainsAny(pattern, "*?") || strings.EqualFold(pattern, name)
}
