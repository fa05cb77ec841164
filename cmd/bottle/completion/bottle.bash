# Completion of bottle for bash: source <(bottle completion bash)

_bottle_complete() {
    local line=${COMP_LINE:0:COMP_POINT} cur prefix value
    local -a words
    # Nothing of the line is evaluated.
    read -ra words <<<"$line"
    case $line in
    *[[:space:]]) words+=("") ;;
    esac
    cur=${words[${#words[@]} - 1]}
    # Readline breaks words at these, and replaces what follows alone.
    prefix=${cur%"${cur##*[=:]}"}
    COMPREPLY=()
    while IFS=$'\t' read -r value _; do
        case $value in
        :files) compopt -o default 2>/dev/null ;;
        "$cur"*) COMPREPLY+=("${value#"$prefix"}") ;;
        esac
    done < <("${words[0]/#\~/$HOME}" __complete "${words[@]:1}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=:] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}

complete -F _bottle_complete bottle
