#compdef bottle
# Completion of bottle for zsh: bottle completion zsh > "${fpath[1]}/_bottle"

_bottle() {
    local -a found
    local value description files
    while IFS=$'\t' read -r value description; do
        if [[ $value == :files ]]; then
            files=1
        else
            found+=("${value//:/\\:}:$description")
        fi
    done < <("${(Q)words[1]}" __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)
    (( $#found )) && _describe -t values bottle found
    [[ -n $files ]] && _files
    return 0
}

if [[ ${funcstack[1]} == _bottle ]]; then
    _bottle "$@"
else
    compdef _bottle bottle
fi
