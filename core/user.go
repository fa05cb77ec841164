package core

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// account is the agent's user inside the bottle.
type account struct {
	UID, GID int
	Name     string // empty if the image does not name it
	Home     string // absolute
}

// resolveUser finds out who a user specification means in a container, by the
// rules by which engines do: names are looked up in the image's /etc/passwd and
// /etc/group, numbers stand for themselves, and no user means root.
func resolveUser(ctx context.Context, open opener, spec string) (account, error) {
	passwd, err := readInside(ctx, open, "/etc/passwd")
	if err != nil {
		return account{}, err
	}
	var group []byte
	user, groupName, hasGroup := strings.Cut(spec, ":")
	if _, err := strconv.Atoi(groupName); hasGroup && err != nil {
		if group, err = readInside(ctx, open, "/etc/group"); err != nil {
			return account{}, err
		}
	}
	return lookupUser(user, groupName, passwd, group)
}

func lookupUser(user, group string, passwd, groups []byte) (account, error) {
	if user == "" {
		user = "0"
	}
	uid, err := strconv.Atoi(user)
	byNumber := err == nil
	acc := account{UID: uid, Home: "/"}
	found := byNumber
	for fields := range colonLines(passwd, 7) {
		id, errUID := strconv.Atoi(fields[2])
		gid, errGID := strconv.Atoi(fields[3])
		if errUID != nil || errGID != nil || fields[0] != user && (!byNumber || id != uid) {
			continue
		}
		acc = account{UID: id, GID: gid, Name: fields[0], Home: "/"}
		if path.IsAbs(fields[5]) {
			acc.Home = path.Clean(fields[5])
		}
		found = true
		break
	}
	if !found {
		return account{}, fmt.Errorf("the image has no user %q in its /etc/passwd", user)
	}
	if group == "" {
		return acc, nil
	}
	if gid, err := strconv.Atoi(group); err == nil {
		acc.GID = gid
		return acc, nil
	}
	for fields := range colonLines(groups, 3) {
		if gid, err := strconv.Atoi(fields[2]); err == nil && fields[0] == group {
			acc.GID = gid
			return acc, nil
		}
	}
	return account{}, fmt.Errorf("the image has no group %q in its /etc/group", group)
}

// colonLines yields the lines that have at least n fields.
func colonLines(data []byte, n int) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
			if fields := strings.Split(s.Text(), ":"); len(fields) >= n && !yield(fields) {
				return
			}
		}
	}
}

const (
	maxAccounts = 4 << 20 // bytes of /etc/passwd or /etc/group
	maxLinks    = 8
)

// readInside reads a small file of a container, through symbolic links; a missing
// one is empty.
func readInside(ctx context.Context, open opener, name string) ([]byte, error) {
	for range maxLinks {
		content, link, err := readOnce(ctx, open, name)
		if err != nil || link == "" {
			return content, err
		}
		if !path.IsAbs(link) {
			link = path.Join(path.Dir(name), link)
		}
		name = path.Clean(link)
	}
	return nil, fmt.Errorf("%s in the image: too many symbolic links", name)
}

func readOnce(ctx context.Context, open opener, name string) (content []byte, link string, err error) {
	archive, err := open(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = archive.Close() }()
	r := tar.NewReader(archive)
	h, err := r.Next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, "", nil
	case err != nil:
		return nil, "", err
	case h.Typeflag == tar.TypeSymlink:
		return nil, h.Linkname, nil
	case h.Typeflag != tar.TypeReg:
		return nil, "", nil
	case h.Size > maxAccounts:
		return nil, "", fmt.Errorf("%s in the image is larger than %d bytes", name, maxAccounts)
	}
	content, err = io.ReadAll(r)
	return content, "", err
}
