# Completion of bottle for fish: bottle completion fish > ~/.config/fish/completions/bottle.fish

function __bottle_complete
    set -l words (commandline -opc)
    set -l program $words[1]
    set -e words[1]
    set -l cur (commandline -ct)
    for line in ($program __complete $words "$cur" 2>/dev/null)
        if test "$line" = ":files"
            __fish_complete_path "$cur"
        else
            echo $line
        end
    end
end

complete -c bottle -f -a '(__bottle_complete)'
