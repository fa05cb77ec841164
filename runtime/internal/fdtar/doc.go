// Package fdtar writes files of a container into an archive from outside of it.
//
// It walks by descriptors, each opened below the one before and none through a link,
// so that whatever the container renames or links meanwhile, nothing but what lies
// below the first descriptor is read. It opens no device, no FIFO and no socket, and
// stays out of the file systems that the kernel makes up.
package fdtar
