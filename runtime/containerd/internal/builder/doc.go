// Package builder builds images for the containerd engine with BuildKit,
// embedded as a library: no buildkitd runs anywhere.
package builder
